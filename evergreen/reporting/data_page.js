"use strict";
const data = JSON.parse(document.getElementById("map-data").textContent);
const card = document.getElementById("map-card"), map = document.getElementById("map");
const picture = card.querySelector("img"), none = card.querySelector(".none");
function show(circle) {
  const [label, source, address] = data[Number(circle.dataset.i)];
  picture.hidden = !address;
  none.hidden = Boolean(address);
  if (address) picture.src = address;
  card.querySelector("b").textContent = label;
  card.querySelector("small").textContent = source;
  card.hidden = false;
  const dot = circle.getBoundingClientRect(), frame = map.parentElement.getBoundingClientRect();
  const left = Math.min(dot.right - frame.left + 8, frame.width - card.offsetWidth - 4);
  const top = Math.min(dot.bottom - frame.top + 8, frame.height - card.offsetHeight - 4);
  card.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}
for (const kind of ["pointerover", "click"]) {
  map.addEventListener(kind, (event) => {
    if (event.target.dataset && event.target.dataset.i) show(event.target);
    else if (kind === "click") card.hidden = true;
  });
}
map.addEventListener("pointerleave", () => { card.hidden = true; });
for (const button of document.querySelectorAll("button[data-colour]")) {
  button.addEventListener("click", () => {
    const chosen = button.getAttribute("aria-pressed") !== "true";
    for (const other of document.querySelectorAll("button[data-colour]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(chosen));
    for (const circle of map.querySelectorAll("circle")) {
      circle.classList.toggle("faint", chosen && !circle.classList.contains(`c${button.dataset.colour}`));
    }
  });
}
