"use strict";
// DOM helpers. Text is inserted as text nodes and attributes, never as markup.

const percent = (share) => `${100 * share}%`;
const superscript = (number) => String(number).replace(/[-\d]/g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);

// Format a number with the given significant digits, without trailing zeros and without "e".
function rounded(value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 0.001 && size < 1e5) return String(Number(value.toPrecision(digits)));
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  return `${Number(mantissa)} × 10${superscript(Number(power))}`;
}

// Format attention in percent.
const asShare = (value) => `${rounded(100 * value, Math.abs(value) >= 0.1 ? 3 : 2)} %`;
const inSeconds = (value) => `${value.toFixed(2)} s`;
const inDecibels = (nats) => Math.round((20 / Math.LN10) * nats);
const inHertz = (value) => `${Math.round(value)} Hz`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// Create an element with a class, "on..." event handlers, and attributes (null and false: none).
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function makeSection(title, ...children) {
  return make("section", { class: "section", "aria-label": title }, make("h2", {}, title), ...children);
}

function makeFold(title, ...children) {
  return make("details", { class: "section" }, make("summary", {}, make("h2", {}, title)), ...children);
}

function makeSaid(...children) {
  return make("p", { class: "said" }, ...children);
}

function makeChoice(label, options, chosen) {
  const control = make("select", { onchange: () => chosen(Number(control.value)) }, ...options);
  return make("label", { class: "choice" }, make("span", {}, label), control);
}
