"use strict";
// The map: hovering or choosing a dot says what it is, the boxes and the list choose which are shown. The page is whole
// without this script; then every dot is shown, with its text as a title.

const map = document.getElementById("map");
if (map) {
  const boxes = [...document.querySelectorAll("[data-filter]")];
  const choice = document.getElementById("region");
  const said = document.getElementById("said");
  const count = document.getElementById("count");
  const dots = [...map.querySelectorAll(".dot")];
  const rings = [...map.querySelectorAll(".ring")];
  const hint = said.textContent;
  let held = null;

  const say = (dot) => {
    said.textContent = dot ? dot.querySelector("title").textContent : hint;
  };

  const hold = (dot) => {
    held?.classList.remove("held");
    held = dot;
    held?.classList.add("held");
    say(held);
  };

  const filter = () => {
    const kinds = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.filter));
    let shown = 0;
    for (const dot of dots) {
      const here = kinds.has(dot.dataset.kind) && (choice.value === "" || dot.dataset.region === choice.value);
      dot.toggleAttribute("hidden", !here);
      shown += here;
    }
    for (const ring of rings) ring.classList.toggle("chosen", choice.value !== "" && ring.dataset.region === choice.value);
    for (const box of boxes) box.closest("label").classList.toggle("off", !box.checked);
    count.textContent = dots.length ? `${shown} of ${dots.length} shown` : "";
    if (held?.hasAttribute("hidden")) hold(null);
  };

  for (const box of boxes) box.addEventListener("change", filter);
  choice.addEventListener("change", filter);
  document.getElementById("all").addEventListener("click", () => {
    for (const box of boxes) box.checked = true;
    choice.value = "";
    hold(null);
    filter();
  });
  map.addEventListener("pointerover", (event) => {
    const dot = event.target.closest(".dot");
    if (dot) say(dot);
  });
  map.addEventListener("pointerout", () => say(held));
  map.addEventListener("click", (event) => {
    const dot = event.target.closest(".dot");
    const mark = event.target.closest(".mark");
    if (dot) hold(dot === held ? null : dot);
    if (mark) {
      event.preventDefault();
      choice.value = choice.value === mark.dataset.region ? "" : mark.dataset.region;
      filter();
    }
  });
  document.getElementById("filters").hidden = false;
  filter();
}

// A link to an expert opens it; on paper all of them are open.
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", open);
open();
