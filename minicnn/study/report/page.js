"use strict";
// What is chosen is in `now`; `draw` shows it. Everything else fills the page once.

const facts = JSON.parse(document.getElementById("facts").textContent);
const frames = JSON.parse(document.getElementById("frames").textContent);
const now = { layer: 1, sample: 0, frame: frames.length - 1 };
const at = id => document.getElementById(id);

// A new element with these attributes and children (text or elements).
function make(name, attributes = {}, ...children) {
  const element = name === "rect" || name === "line" ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const times = shape => shape.join(" × ");
const readable = x => x === null ? "no number" : Math.abs(x) >= 0.001 || x === 0 ? String(+x.toPrecision(3)) : x.toExponential(1);

function rows(table, pairs) {
  table.replaceChildren(...pairs.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
}

// A group of radio buttons: the browser gives them their keys.
function choices(fieldset, name, faces, choose) {
  faces.forEach((face, i) => {
    const input = make("input", { type: "radio", name, value: i, id: `${name}-${i}` });
    input.addEventListener("change", () => { now[name] = i; draw(); });
    face.classList.add("face");
    fieldset.append(make("label", {}, input, face));
  });
}

// Bars with a name and a number: [class, value]; signed ones start in the middle.
function bars(list, right, signed) {
  const box = make("div", { class: "bars" });
  const most = signed ? Math.max(...list.map(([, value]) => Math.abs(value)), 1e-9) : 1;
  for (const [label, value] of list) {
    const kind = label === right ? " right" : "";
    const bar = make("span", { class: "bar" + (signed ? value > 0 ? " plus" : "" : " p" + kind) });
    const width = 100 * Math.abs(value) / most;
    bar.style.width = `${signed ? width / 2 : width}%`;
    bar.style.left = signed ? `${value < 0 ? 50 - width / 2 : 50}%` : "0";
    box.append(make("span", { class: "name" + kind, title: facts.classes[label] }, facts.classes[label]),
               make("span", { class: "track" }, bar), make("span", { class: "number" }, signed || value === null ? readable(value) : `${(100 * value).toFixed(1)} %`));
  }
  return box;
}

// A histogram: how often each size occurs, from -most to most.
function bins(svg, found, what) {
  svg.replaceChildren();
  if (!found) return;
  const [counts, most] = found, highest = Math.max(...counts, 1);
  svg.setAttribute("viewBox", `0 0 ${counts.length} 24`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `how often each size occurs in ${what}, from ${readable(-most)} to ${readable(most)}`);
  counts.forEach((count, i) => svg.append(make("rect", { x: i + 0.1, width: 0.8, y: 24 - 24 * count / highest, height: 24 * count / highest })));
}

function picture(article, source, text, alt) {
  const box = article.querySelector(".shown");
  box.replaceChildren(...source ? [make("img", { src: source, alt })] : []);
  article.querySelector(".text").textContent = text || "";
}

function draw() {
  const frame = frames[now.frame], fact = facts.layers[now.layer], sample = facts.samples[now.sample];
  const found = frame.layers[fact.name] || {}, layer = found.same ? frame.layers[found.same] : found, s = now.sample;
  at(`layer-${now.layer}`).checked = at(`sample-${s}`).checked = true;
  const strip = at("layers"), chosen = at(`layer-${now.layer}`).parentElement;
  const list = strip.parentElement;                                     // on a phone the layers are a strip, else a list
  strip.scrollLeft = chosen.offsetLeft - strip.clientWidth / 2 + chosen.clientWidth / 2;
  if (list.scrollHeight > list.clientHeight) list.scrollTop = chosen.offsetTop - list.clientHeight / 2;
  at("step").value = now.frame;
  at("moment").textContent = frame.step === 0 ? "before the first step" : `after ${frame.step.toLocaleString("en")} step${frame.step > 1 ? "s" : ""}`;
  at("step").setAttribute("aria-valuetext", at("moment").textContent);
  at("loss").textContent = `loss of this image (${facts.classes[sample.label]}): ${readable(frame.loss[s])}`;
  for (const svg of document.querySelectorAll("svg.curves")) {
    const { left, right, last } = svg.dataset;
    const x = +left + (right - left) * Math.min(1, frame.step / Math.max(last, 1));
    for (const end of ["x1", "x2"]) svg.querySelector(".now").setAttribute(end, x);
  }

  at("name").textContent = fact.name;
  at("kind").textContent = fact.kind;
  at("formula").textContent = fact.formula || "";
  at("formula").hidden = !fact.formula;
  for (const way of ["forward", "backward"]) {
    const article = at(way), source = fact[way + "_source"];
    const shapes = way === "forward" ? [fact.in, fact.out] : [fact.out, fact.in];
    article.querySelector(".shapes").textContent = fact.in ? shapes.map(shape => times(shape) || "1").join(" → ") : times(fact.out);
    const arrives = way === "backward" ? "the gradient that arrives here: " : "";
    const text = layer[way + "_text"] ? `${arrives}${layer[way + "_text"][s]}${fact.channels ? "; shown: " + fact.channels : ""}` : "";
    picture(article, layer[way] && layer[way][s], text, `${fact.name}, ${way}: ${text}`);
    article.querySelector(".speed").textContent = fact.speed && fact.speed[way] ? fact.speed[way][1] : "";
    article.querySelector("details").hidden = !source;
    article.querySelector("details pre").textContent = source || "";
  }
  if (fact.name === "image") {
    picture(at("forward"), sample.picture, `a test image: ${facts.classes[sample.label]}`, `the image: ${facts.classes[sample.label]}`);
    at("backward").querySelector(".text").textContent += "; how the loss would change with each pixel";
  } else if (fact.name === "loss") {
    at("forward").querySelector(".shown").replaceChildren(bars(layer.bars[s].map(([c, p]) => [c, p]), sample.label, false));
    at("backward").querySelector(".shown").replaceChildren(bars(layer.bars[s].map(([c, , g]) => [c, g]), sample.label, true));
    at("forward").querySelector(".text").textContent = "probabilities after softmax; the right class is bold";
    at("backward").querySelector(".text").textContent = "the gradient by each score: probability, minus 1 for the right class. Here everything that " +
      "comes back begins";
  } else if (!layer.backward) {
    at("backward").querySelector(".text").textContent = "no gradient came back here";
  }

  at("parameters").hidden = !found.weight;
  if (found.weight) {
    for (const what of ["weight", "gradient"]) {
      picture(at(what), layer[what], layer[what + "_text"], `${what}s of ${fact.name}`);
      bins(at(what).querySelector(".bins"), layer[what + "_bins"], what === "weight" ? "the weights" : "the gradient");
    }
    at("update").textContent = layer.update === undefined || layer.update === null ? ""
      : `The step before changed these weights by ${(100 * layer.update).toPrecision(2)} % of their size (about 0.1 % is usual).`;
  }
  rows(at("costs"), fact.costs || []);
  sizes(frame, s);
  const place = new URLSearchParams({ layer: fact.name, image: s + 1, step: frame.step });
  try { history.replaceState(null, "", "#" + place); } catch { /* a page in a frame may not */ }
}

// Beside each layer: how large its answer is, and the gradient that arrives; 1/10,000 of the largest has no length.
function sizes(frame, s) {
  const of = facts.layers.map(({ name }) => frame.layers[name] || {}).map(layer => (layer.same ? frame.layers[layer.same] : layer).sizes);
  for (const way of [0, 1]) {
    const most = Math.max(...of.map(size => size && size[s][way] || 0), 1e-30);
    of.forEach((size, i) => {
      const share = size ? 1 + Math.log10(Math.max(size[s][way] / most, 1e-4)) / 4 : 0;
      at(`layer-${i}`).nextElementSibling.querySelectorAll(".size")[way].style.width = `${100 * share}%`;
    });
  }
}

// The address may name what to show: #layer=conv2&image=1&step=300
function follow() {
  const place = new URLSearchParams(location.hash.slice(1));
  const found = (list, test, otherwise) => { const i = list.findIndex(test); return i < 0 ? otherwise : i; };
  now.layer = found(facts.layers, layer => layer.name === place.get("layer"), now.layer);
  now.sample = Math.min(facts.samples.length - 1, Math.max(0, (parseInt(place.get("image")) || now.sample + 1) - 1));
  now.frame = found(frames, frame => String(frame.step) === place.get("step"), now.frame);
  draw();
}

// A layer as a block: as high as its maps, as wide as it has channels, both as logarithms.
function block(layer) {
  const [C, H] = layer.out.length === 3 ? layer.out : [1, layer.out[0] || 1];
  const shape = make("span", { class: "block" + ((layer.costs || []).some(([name]) => name === "parameters") ? " weights" : "") });
  shape.style.width = `${layer.out.length === 3 ? 4 + 5 * Math.log2(C) : 4}px`;
  shape.style.height = `${4 + (layer.out.length === 3 ? 5 : 3) * Math.log2(H)}px`;
  return shape;
}

function gallery(title, list) {
  if (!list || !list.length) return;
  at("gallery").append(make("h3", {}, title), ...list.map(answer => make("div", { class: "answer" },
    make("div", {}, make("img", { src: answer.picture, alt: facts.classes[answer.label] }), make("span", { class: "label" }, facts.classes[answer.label])),
    bars(answer.bars, answer.label, false))));
}

function confusion(counts) {
  if (!counts) return;
  const head = make("tr", {}, make("th"), ...facts.classes.map(name => make("th", { scope: "col", title: name }, name)));
  const body = counts.map((row, i) => {
    const sum = Math.max(row.reduce((a, b) => a + b, 0), 1);
    return make("tr", {}, make("th", { scope: "row", class: "row" }, facts.classes[i]), ...row.map((count, j) => {
      const cell = make("td", { title: `${facts.classes[i]} taken for ${facts.classes[j]}: ${count}` }, count ? String(count) : "");
      cell.style.background = `color-mix(in srgb, var(${i === j ? "--blue" : "--red"}) ${Math.round(45 * count / sum)}%, transparent)`;
      return cell;
    }));
  });
  at("confusion").append(make("p", {}, "Who is taken for whom: a row for each right class, a column for each answer."),
                         make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

rows(at("recipe"), facts.recipe);
at("findings").append(...facts.findings.map(f => make("p", { class: "finding" }, `step ${f.step}: ${f.layer}: ${f.message}`)));
choices(at("samples"), "sample", facts.samples.map(sample =>
  make("span", {}, make("img", { src: sample.picture, alt: "" }), facts.classes[sample.label])));
choices(at("layers"), "layer", facts.layers.map(layer =>
  make("span", {}, block(layer), make("span", {}, layer.name, make("span", { class: "shape" }, times(layer.out))),
    make("span", { class: "sizes" }, make("span", { class: "size" }), make("span", { class: "size back" })))));
at("step").max = frames.length - 1;
at("step").addEventListener("input", () => { now.frame = +at("step").value; draw(); });
const { images, right, step, no_answer } = facts.test;
at("right").textContent = `After step ${step.toLocaleString("en")}, ${right.toFixed(1)} % of ${images.toLocaleString("en")} test images are right.` +
  (no_answer ? ` For ${no_answer.toLocaleString("en")} the network has no answer, but NaN.` : "");
gallery("Some answers", facts.test.answers);
gallery("The surest mistakes", facts.test.mistakes);
confusion(facts.test.confusion);
window.addEventListener("hashchange", follow);
follow();
