// Drawing of the explorer: heat, rings, boxes, arrows and labels over a picture.

const SVG = "http://www.w3.org/2000/svg";

/** Decodes the levels of a map: bytes 0 to 255, row by row. */
export function decode(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Paints levels (h, w) on a canvas in the colours of `heat`, 256 of [red, green, blue, opacity]. */
export function paintHeat(canvas, levels, [height, width], heat) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  levels.forEach((level, index) => image.data.set(heat[level], 4 * index));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Places a canvas of cells so that those in the corners have their centres in corner pixels. */
export function placeHeat(canvas, [rows, columns], [height, width]) {
  const [down, across] = [[rows, height], [columns, width]].map(([cells, pixels]) =>
    cells > 1 && pixels > 1 ? (pixels - 1) / (cells - 1) : pixels / cells);
  Object.assign(canvas.style, {
    left: `${(50 * (width - across * columns)) / width}%`,
    top: `${(50 * (height - down * rows)) / height}%`,
    width: `${(100 * across * columns) / width}%`,
    height: `${(100 * down * rows) / height}%`,
  });
}

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

/** Marks of one size on the screen, whatever the size of the picture and the zoom. */
export class Marks {
  /** `unit`: how many pixels of the picture a pixel of the screen is. */
  constructor(svg, [height, width], unit) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.replaceChildren();
    Object.assign(this, { svg, height, width, unit, taken: [] });
  }

  #twice(name, attributes) {
    add(this.svg, name, { ...attributes, class: "edge", "stroke-width": 4.5 * this.unit });
    add(this.svg, name, { ...attributes, class: "mark", "stroke-width": 2 * this.unit });
  }

  ring([row, column], radius = 8) {
    this.#twice("circle", { cx: column + 0.5, cy: row + 0.5, r: radius * this.unit });
  }

  cross([row, column]) {
    const line = { class: "cross", "stroke-width": 1.5 * this.unit };
    add(this.svg, "line", { ...line, x1: 0, x2: this.width, y1: row + 0.5, y2: row + 0.5 });
    add(this.svg, "line", { ...line, y1: 0, y2: this.height, x1: column + 0.5, x2: column + 0.5 });
  }

  box([row, column], reach) {
    const half = Math.max(reach, 7 * this.unit);
    this.#twice("rect", {
      x: column + 0.5 - half, y: row + 0.5 - half, width: 2 * half, height: 2 * half,
    });
  }

  /** Arrows from point to point, a small ring at each stop. */
  way(points) {
    for (let index = 1; index < points.length; index += 1) {
      this.#arrow(points[index - 1], points[index], index === points.length - 1 ? 11 : 0);
    }
    points.slice(1, -1).forEach((point) => this.ring(point, 3));
  }

  #arrow([fromRow, fromColumn], [toRow, toColumn], gap) {
    const [down, across] = [toRow - fromRow, toColumn - fromColumn];
    const length = Math.hypot(down, across);
    const head = 11 * this.unit;
    if (length <= gap * this.unit + head) return;
    const at = (distance, aside = 0) => [
      fromColumn + 0.5 + (across * distance + down * aside) / length,
      fromRow + 0.5 + (down * distance - across * aside) / length,
    ];
    const tip = length - gap * this.unit;
    const [[x1, y1], [x2, y2]] = [at(0), at(tip - head)];
    this.#twice("line", { x1, y1, x2, y2 });
    const corners = [at(tip), at(tip - head, head / 2), at(tip - head, -head / 2)];
    add(this.svg, "polygon", {
      class: "head", points: corners.map((corner) => corner.join()).join(" "),
      "stroke-width": 2.5 * this.unit,
    });
  }

  /** Writes beside a box, where no other label is. */
  label([row, column], reach, text) {
    const size = 14 * this.unit;
    const [width, gap] = [0.62 * size * text.length, Math.max(reach, 7 * this.unit) + 6 * this.unit];
    const places = [
      [column + gap, row], [column - gap - width, row],
      [column - width / 2, row - gap - size / 2], [column - width / 2, row + gap + size / 2],
    ].map(([x, y]) => [
      Math.min(Math.max(x, 2), this.width - width), Math.min(Math.max(y, size), this.height - size),
    ]);
    const cost = ([x, y]) => {
      const meets = ([left, top, wide]) =>
        x < left + wide && left < x + width && Math.abs(top - y) < 1.2 * size;
      const covers = column > x - gap / 2 && column < x + width + gap / 2 && Math.abs(row - y) < gap;
      return 2 * this.taken.filter(meets).length + covers;
    };
    const [x, y] = places.reduce((best, one) => (cost(one) < cost(best) ? one : best));
    this.taken.push([x, y, width]);
    add(this.svg, "text", {
      x, y: y + 0.35 * size, "font-size": size, "stroke-width": 3.5 * this.unit,
    }, text);
  }
}
