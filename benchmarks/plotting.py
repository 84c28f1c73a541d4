"""Plotting: what all pictures share. The same data give the same bytes, and nothing is told by colour alone.

Matplotlib comes with the extra ``figures``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mop.errors import DataError, SettingsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Told apart by shape as well as by shade.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "d", "p", "8", "H", "1")
SHADES = ("0.0", "0.45", "0.7")
#: Formats of pictures by the end of a file's name.
FORMATS = ("svg", "png")
_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is everywhere the same
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "svg.hashsalt": "mop",  # names inside the file would be random otherwise
    "svg.fonttype": "path",
    "savefig.dpi": 110,
}


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of ``width`` × ``height`` inches and write it to ``path`` (SVG or PNG) at the end.

    Raises SettingsError without matplotlib and for another format, DataError if the file can't be written.
    """
    if path.suffix.lstrip(".") not in FORMATS:
        raise SettingsError(f"{path} is no picture that can be drawn; its name must end with .svg or .png.")
    try:
        from matplotlib import rc_context, rcdefaults
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError('Pictures need matplotlib; install it with `pip install "mop[figures]"`.') from error
    with rc_context():
        rcdefaults()  # not the user's own settings
        with rc_context(_SETTINGS):
            figure = Figure(figsize=(width, height), layout="constrained")
            yield figure
            # No date and no version: they would change the bytes.
            metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, metadata=metadata)
            except OSError as error:
                raise DataError(f"The picture {path} cannot be written: {error}.") from error
