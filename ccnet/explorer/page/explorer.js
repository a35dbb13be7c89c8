// The explorer's page: every answer depends on `state` alone, and late answers are dropped.

import { decode, Marks, paintHeat, placeHeat } from "./drawing.js";
import { element, percent, swatch } from "./elements.js";
import { ask, Refused } from "./requests.js";

const $ = (id) => document.getElementById(id);
const ZOOM = 4;
const FILE = "a file…";
const NUMBERS = ["no", "one", "two", "three", "four"];

const state = { picture: "", weights: "", loops: "", pixel: null };
const uploads = new Map();  // files by the id of the picture, for when it is no longer kept
let options;
let view;
let attention;
let request = new AbortController();

function tell(reason) {
  $("message").textContent = reason ?? "";
  $("message").hidden = !reason;
}

const chosen = () => ({ picture: state.picture, weights: state.weights, loops: state.loops });
/** Runs `work` for the newest choice: an older one still running is dropped. */
async function update(work) {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  const busy = setTimeout(() => { if (!signal.aborted) $("busy").hidden = false; }, 300);
  try {
    await work(signal);
    if (!signal.aborted) tell();
  } catch (error) {
    if (!signal.aborted && error.name !== "AbortError") tell(error.message);
  } finally {
    clearTimeout(busy);
    if (!signal.aborted) $("busy").hidden = true;
  }
}

async function withUpload(work) {
  try {
    return await work();
  } catch (error) {
    const file = uploads.get(state.picture);
    if (error.status !== 404 || !file) throw error;
    await ask("pictures", {}, { method: "POST", body: file });
    return work();
  }
}

async function showView(signal) {
  const found = await withUpload(() => ask("view", chosen(), { signal }));
  signal.throwIfAborted();
  const isOther = !view || String(found.size) !== String(view.size);
  view = found;
  fillLoops();
  view.of = JSON.stringify(chosen());
  if (!state.pixel || isOther) state.pixel = view.size.map((side) => Math.floor(side / 2));
  const at = new URLSearchParams(chosen());
  await load(document.querySelector("#photo-stage .photo"),
    `picture?${new URLSearchParams({ picture: state.picture })}`, signal);
  signal.throwIfAborted();
  await load(document.querySelector("#photo-stage .labels"), `labels?${at}`, signal);
  signal.throwIfAborted();
  $("legend").replaceChildren(...view.classes.map((one) => {
    const item = element("li", "");
    item.append(swatch(one.color), `${one.name} ${percent(one.share)}`);
    return item;
  }));
  await showAttention(signal);
}

/** Waits for an image, or until the signal says that another takes its place: then it never loads. */
function load(image, source, signal) {
  const address = new URL(source, document.baseURI).href;
  if (image.src === address) return Promise.resolve();
  return new Promise((resolve) => {
    image.onload = resolve;
    image.onerror = resolve;
    signal.addEventListener("abort", resolve);
    image.src = address;
  });
}

async function showAttention(signal) {
  const [row, column] = state.pixel;
  const found = await withUpload(
    () => ask("attention", { ...chosen(), row, column }, { signal }));
  signal.throwIfAborted();
  attention = found;
  fillMaps();
  draw();
  fillPixel();
}

function fillMaps() {
  const photo = document.querySelector("#photo-stage .photo");
  while ($("maps").children.length > attention.maps.length) $("maps").lastChild.remove();
  while ($("maps").children.length < attention.maps.length) $("maps").append(mapPanel());
  attention.maps.forEach((map, index) => {
    const panel = $("maps").children[index];
    const count = map.loops;
    panel.id = `map-${count}`;
    panel.querySelector("h2").textContent =
      `Attention after ${NUMBERS[count] ?? count} loop${count > 1 ? "s" : ""}`;
    panel.querySelector(".photo").src = photo.src;
    panel.querySelector(".sources").replaceChildren(...map.sources.map((source) => {
      const item = element("li", "");
      item.append(swatch(source.color), `${source.class} gives ${percent(source.share)}`,
        `, at row ${source.pixel[0]}, column ${source.pixel[1]}`);
      return item;
    }));
    const [path] = map.paths;
    panel.querySelector(".path").textContent = path
      ? `From its strongest position ${path.words}: ${percent(path.share)} of all attention.` : "";
  });
}

function mapPanel() {
  const panel = element("section", "", { className: "map" });
  const stage = element("div", "", { className: "stage" });
  const content = element("div", "", { className: "content" });
  content.append(element("img", "", { className: "photo", alt: "" }), element("canvas", ""),
    document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  stage.append(content);
  stage.addEventListener("click", pick);
  panel.append(element("h2", "Attention"), stage, element("ol", "", { className: "sources" }),
    element("p", "", { className: "path" }));
  return panel;
}

/** Draws all that needs no new answer: scale, zoom, opacity, size of the window. */
function draw() {
  if (!attention) return;
  document.querySelector("#photo-stage .labels").style.opacity = $("opacity").value / 100;
  const stage = $("photo-stage");
  const marks = new Marks(stage.querySelector("svg"), view.size, view.size[1] / stage.clientWidth);
  marks.ring(attention.pixel);
  marks.label(attention.pixel, 0, attention.class);
  attention.maps.forEach((map, index) => drawMap($("maps").children[index], map));
  drawScale();
}

function drawMap(panel, map) {
  const [stage, content, canvas] = [".stage", ".content", "canvas"].map((one) =>
    panel.querySelector(one));
  paintHeat(canvas, decode(map.levels[$("scale").value]), view.map_size, options.heat);
  placeHeat(canvas, view.map_size, view.size);
  const zoom = $("zoom").checked ? ZOOM : 1;
  const shift = map.sources[0].pixel.map((at, axis) =>
    Math.min(Math.max((zoom * (at + 0.5)) / view.size[axis] - 0.5, 0), zoom - 1));
  content.style.transform =
    `translate(${-100 * shift[1]}%, ${-100 * shift[0]}%) scale(${zoom})`;
  const marks = new Marks(panel.querySelector("svg"), view.size,
    view.size[1] / stage.clientWidth / zoom);
  const reach = 2.5 * view.size[1] / view.map_size[1];
  if (map.loops === 1) marks.cross(attention.pixel);
  map.sources.forEach((source) => marks.box(source.pixel, reach));
  if (map.paths.length) marks.way(map.paths[0].points);
  marks.ring(attention.pixel);
  map.sources.forEach((source) =>
    marks.label(source.pixel, reach, `${source.class} ${percent(source.share)}`));
}

function drawScale() {
  $("scale-panel").hidden = !attention.maps.length;
  const bar = $("bar").getContext("2d");
  options.heat.forEach(([red, green, blue], x) => {
    bar.fillStyle = `rgb(${red} ${green} ${blue})`;
    bar.fillRect(x, 0, 1, 1);
  });
  const thirds = [0, 1, 2, 3].map((third) => third / 3);
  const ticks = $("scale").value === "linear"
    ? ["0 %", "", "", "the map's largest"]
    : thirds.map((part) => `${Number((100 * 10 ** (options.decades * (part - 1))).toPrecision(3))} %`);
  if ($("scale").value !== "linear") ticks[0] = `≤ ${ticks[0]}`;
  $("ticks").replaceChildren(...ticks.map((text, index) => {
    const tick = element("span", text);
    tick.style.left = `${100 * thirds[index]}%`;
    tick.style.transform = `translateX(${-100 * thirds[index]}%)`;
    return tick;
  }));
}

function fillPixel() {
  $("pixel-panel").hidden = false;
  const [row, column] = attention.pixel;
  $("pixel-title").textContent = `Row ${row}, column ${column}: ${attention.class}`;
  const rows = attention.probabilities.slice(0, 6).map((one) => {
    const line = element("tr", "");
    const name = element("td", "");
    name.append(swatch(one.color), one.name);
    const bar = element("td", "", { className: "bar" });
    const fill = element("span", "");
    fill.style.width = `${100 * one.probability}%`;
    bar.append(fill);
    line.append(name, bar, element("td", percent(one.probability), { className: "share" }));
    return line;
  });
  $("probabilities").replaceChildren(...rows);
}

function move(row, column) {
  state.pixel = [row, column].map((at, axis) =>
    Math.min(Math.max(Math.floor(at), 0), view.size[axis] - 1));
  // A click before the view of another choice is there: both are asked for.
  update(view.of === JSON.stringify(chosen()) ? showAttention : showView);
}

function pick(event) {
  if (!view) return;
  const area = event.currentTarget.querySelector(".photo").getBoundingClientRect();
  move(((event.clientY - area.top) / area.height) * view.size[0],
    ((event.clientX - area.left) / area.width) * view.size[1]);
}

function steer(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const direction = step[event.key];
  if (!direction || !view) return;
  event.preventDefault();
  move(...state.pixel.map((at, axis) =>
    at + direction[axis] * Math.max(1, Math.round(view.size[axis] / view.map_size[axis]))));
}

async function upload(file) {
  if (!file) return;
  if (file.size > options.most_bytes) {
    tell(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MiB, but may have `
      + `${options.most_bytes / 2 ** 20}.`);
    return;
  }
  await update(async (signal) => {
    try {
      const { picture } = await ask("pictures", {}, { method: "POST", body: file, signal });
      const choice = [...$("picture").options].find((one) => one.value === picture)
        ?? new Option(file.name, picture);
      $("picture").add(choice, 0);
      $("picture").value = picture;
      uploads.set(picture, file);
      state.picture = picture;
    } catch (error) {
      throw error instanceof Refused ? new Refused(error.status, `${file.name}: ${error.message}`)
        : error;
    }
    await showView(signal);
  });
}

function fillLoops() {
  const numbers = [...Array((view.has_attention ? options.most_loops : 0) + 1).keys()];
  $("loops").replaceChildren(...numbers.map((number) =>
    new Option(number === view.trained_loops ? `${number} (as trained)` : number, number)));
  state.loops = String(view.loops);
  $("loops").value = state.loops;
}

function chooseWeights() {
  const isFile = $("weights").value === FILE;
  $("file-field").hidden = !isFile;
  const name = isFile ? $("file").value.trim() : $("weights").value;
  if (!name) return;
  Object.assign(state, { weights: name, loops: "" });
  update(showView);
}

function connect() {
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("picture").addEventListener("change", () => {
    state.picture = $("picture").value;
    update(showView);
  });
  $("upload").addEventListener("change", () => {
    const [file] = $("upload").files;
    $("upload").value = "";
    upload(file);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    upload(event.dataTransfer.files[0]);
  });
  $("weights").addEventListener("change", chooseWeights);
  $("file").addEventListener("change", chooseWeights);
  $("loops").addEventListener("change", () => {
    state.loops = $("loops").value;
    update(showView);
  });
  for (const id of ["scale", "opacity", "zoom"]) $(id).addEventListener("input", draw);
  $("photo-stage").addEventListener("click", pick);
  $("photo-stage").addEventListener("keydown", steer);
  new ResizeObserver(draw).observe($("photo-stage"));
}

async function start() {
  options = await ask("options");
  const choices = (list) => list.map((one) => new Option(one.name, one.id));
  $("picture").replaceChildren(...choices(options.pictures));
  $("weights").replaceChildren(...choices(options.weights));
  if (options.allows_files) $("weights").add(new Option(FILE, FILE));
  $("weights").value = options.first_weights;
  Object.assign(state, { picture: $("picture").value, weights: options.first_weights });
  connect();
  await update(showView);
  document.body.dataset.ready = "true";
}

start().catch((error) => tell(error.message));
