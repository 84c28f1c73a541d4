"""What pictures of a mixture are made of, wherever they are shown: its regions on paper, its numbers in words.

Two fronts use it, the page of the server and the report; it knows neither, and no HTML but the marks' shapes.
"""

from pathlib import Path

#: Where the shapes of a map's marks are, as a template.
TEMPLATES = Path(__file__).parent / "templates"
