"""Page: what `mop serve` shows to people at ``/``: the mixture, the map of its regions, a box to try a query, traffic.

`routes` are its addresses. `view` turns a mixture into words and numbers, `picture` its map into places on paper,
`trying` a query into an explanation; templates/ and static/ turn those into HTML. The page can be read without
JavaScript, takes nothing that the server itself doesn't send, and needs no step that builds it. Everything that comes
from a file or a query is escaped where it is written.
"""
