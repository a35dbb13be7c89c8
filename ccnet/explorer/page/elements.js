// Elements of the page.

/** A share in words, with as many digits as it deserves. */
export const percent = (share) => (share >= 0.0995 ? `${(100 * share).toFixed(0)} %`
  : share >= 0.00095 ? `${(100 * share).toFixed(1)} %` : "< 0.1 %");

/** Makes an element of a text, with properties. */
export function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text) made.append(text);
  return made;
}

/** A small field of a colour. */
export function swatch(color) {
  const made = element("span", "", { className: "swatch" });
  made.style.background = `rgb(${color})`;
  return made;
}
