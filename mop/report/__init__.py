"""The report: one HTML file that shows what a mixture is, whether it helped, and why.

`mop.report.measuring` scores systems on examples; `mop.report.page` writes the page; the modules between them each know
one section. None of them knows the command line, and only measuring asks a model.
"""
