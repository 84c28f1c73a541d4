// Plane: the query's cross-hair on the map of the regions.

const element = (id) => document.getElementById(id);

function join(line, from, mark) {
  const ends = { x1: from[0], y1: from[1], x2: mark?.dataset.x ?? from[0], y2: mark?.dataset.y ?? from[1] };
  for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
}

/** Show a query at a point of the map, with lines to its region and to the second nearest. */
export function show(point, region, second) {
  const you = element("you");
  if (!you || !point) return;
  you.setAttribute("transform", `translate(${point[0]} ${point[1]})`);
  you.setAttribute("visibility", "visible");
  join(element("to-region"), point, element(`mark-${region}`));
  join(element("to-second"), point, second === null ? null : element(`mark-${second}`));
  element("you-lines").setAttribute("visibility", "visible");
  element("you-words").hidden = false;
  for (const mark of document.querySelectorAll(".mark.chosen")) mark.classList.remove("chosen");
  element(`mark-${region}`)?.classList.add("chosen");
}
