"use strict";
// What all scripts of the page share. They are joined into one when the page is written: this one first, then the
// other shared ones, then those of each section, in the order in which the page shows the sections.

/** What the page knows, by the names of its sections. */
const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const counted = (n, thing) => `${count(n)} ${thing}${n === 1 ? "" : "s"}`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/** A square outline around a point of a canvas. */
function strokeSquare(context, [x, y], side) {
  context.strokeRect(x - side / 2, y - side / 2, side, side);
}
