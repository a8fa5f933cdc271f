// One network: what it sees, its five likeliest classes, and where it looks.

import { ask, complain, latest, option } from "./ask.js";

const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`);
const HEAT = [[255, 245, 235, 0], [253, 190, 133, 0.45], [241, 105, 19, 0.7], [166, 54, 3, 0.8], [90, 28, 2, 0.85]];
const MASK = "#ff7a1a";

export class Panel {
  constructor(side, models, chosen, page) {
    this.side = side;
    this.models = models;
    this.page = page;
    this.box = document.getElementById(side);
    this.box.append(document.getElementById("network").content.cloneNode(true));
    const find = (query) => this.box.querySelector(query);
    this.find = find;
    this.canvas = find("canvas");
    this.box.setAttribute("aria-label", `The network on the ${side}`);
    find(".model").append(...models.map((model, number) => option(number, model.name, number === chosen)));
    find(".model").addEventListener("change", () => {
      this.choose();
      page.modelChanged(this);
    });
    this.look = latest(
      () => this.ask(),
      (text) => this.fail(text),
    );
    for (const name of [".show", ".block", ".head", ".token", ".threshold"])
      find(name).addEventListener("input", () => {
        this.label();
        this.look();
      });
    this.choose();
  }

  get number() {
    return Number(this.find(".model").value);
  }

  get model() {
    return this.models[this.number];
  }

  // Another network: other blocks, other tokens.
  choose() {
    const { blocks, tokens, classifies } = this.model;
    this.find(".inside").hidden = !blocks;
    this.find(".none").hidden = blocks > 0;
    this.find(".legend").hidden = this.find(".bars").hidden = !classifies;
    this.find(".model").title = this.model.name;
    this.find(".block").max = Math.max(0, blocks - 1);
    this.find(".block").value = Math.max(0, blocks - 1);
    const called = { patches: "all patches", class: "class token" };
    this.find(".token").replaceChildren(...tokens.map((token) => option(token, called[token] ?? `${token} token`)));
    this.find(".whose").hidden = tokens.length < 2;
    this.heads(0);
    this.label();
  }

  heads(count) {
    const select = this.find(".head");
    if (select.length === count + 1) return;
    const before = Number(select.value || -1);
    const names = ["mean of all", ...Array.from({ length: count }, (_, head) => `head ${head}`)];
    select.replaceChildren(...names.map((name, place) => option(place - 1, name, place - 1 === before)));
  }

  label() {
    const show = this.find(".show").value;
    this.find(".details").hidden = !show;
    this.find(".masked").hidden = show !== "mask";
    const block = this.find(".block");
    block.parentElement.querySelector("output").textContent = `${block.value} (0 to ${block.max})`;
    const threshold = this.find(".threshold");
    threshold.parentElement.querySelector("output").textContent = `${threshold.value} %`;
  }

  inside() {
    if (!this.find(".show").value || !this.model.blocks) return null;
    return {
      block: Number(this.find(".block").value),
      head: Number(this.find(".head").value),
      token: this.find(".token").value,
      threshold: Number(this.find(".threshold").value) / 100,
    };
  }

  async ask() {
    const settings = this.page.settings();
    if (!settings.photo) return;
    const show = this.find(".show").value;
    const waiting = setTimeout(() => this.wait(true), 250);
    try {
      const answer = await ask("look", { ...settings, panel: this.side, model: this.number, inside: this.inside() });
      complain(this.find(".problem"), "");
      await this.draw(answer, show);
      this.tell(answer);
    } finally {
      clearTimeout(waiting);
      this.wait(false);
    }
  }

  wait(busy) {
    this.box.classList.toggle("busy", busy);
    this.box.setAttribute("aria-busy", busy);
    if (busy) this.find(".time").textContent = "working …";
  }

  fail(text) {
    complain(this.find(".problem"), text);
    this.find(".bars").replaceChildren();
    this.find(".says").textContent = "";
    this.find(".time").textContent = "";
    this.page.said(this, "cannot answer");
  }

  async draw({ image, inside }, show) {
    const picture = new Image();
    picture.src = image;
    await picture.decode();
    const { canvas } = this;
    canvas.width = 448;
    canvas.height = Math.round((448 * picture.naturalHeight) / picture.naturalWidth);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = picture.naturalWidth > canvas.width;
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", `What ${this.model.name} sees${inside ? `, with its ${show}` : ""}`);
    if (!inside) return;
    this.heads(inside.heads);
    if (show === "mask") drawMask(pen, canvas, inside);
    else drawAttention(pen, canvas, inside);
    const share = inside.mask.filter(Boolean).length / inside.mask.length;
    const overlap = inside.overlap === null ? "" : ` Its overlap with the object (Jaccard index) is ${percent(inside.overlap)}.`;
    this.find(".found").textContent =
      show === "mask"
        ? `The fewest patches with that share: ${percent(share)} of the picture.${overlap}`
        : "Darker orange: more attention.";
  }

  tell({ top, before, milliseconds, shuffled }) {
    const bars = top.map(({ name, probability, before: then, right }) => {
      const bar = document.createElement("li");
      const [label, value, track, fill, tick] = ["span", "span", "div", "div", "div"].map((tag) =>
        document.createElement(tag),
      );
      label.className = "name";
      label.textContent = label.title = name;
      if (right) {
        const mark = document.createElement("span");
        mark.className = "right";
        mark.textContent = " ✓";
        mark.title = "what the photo shows";
        mark.setAttribute("role", "img");
        mark.setAttribute("aria-label", "what the photo shows");
        label.append(mark);
      }
      value.className = "value";
      value.textContent = percent(probability);
      track.className = "track";
      fill.className = "fill";
      fill.style.width = `${100 * probability}%`;
      tick.className = "tick";
      tick.style.left = `${100 * then}%`;
      track.append(fill, tick);
      bar.append(label, value, track);
      return bar;
    });
    this.find(".bars").replaceChildren(...bars);
    const says = this.find(".says");
    says.replaceChildren();
    if (top.length) {
      const changed = top[0].name !== before.name;
      const name = document.createElement("strong");
      name.textContent = top[0].name;
      says.append("says ", name);
      if (changed) says.append(`, not ${before.name} any more`);
      says.classList.toggle("changed", changed);
      this.page.said(this, `${top[0].name} ${percent(top[0].probability)}`);
    } else {
      says.textContent = "This network has no classifier.";
      this.page.said(this, "has no classifier");
    }
    const asked = this.page.settings().shuffle;
    const other = shuffled && shuffled.some((side) => side !== asked) ? `, ${shuffled.join(" × ")} cells change places` : "";
    this.find(".time").textContent = `${this.model.size.join(" × ")} pixels${other}, ${milliseconds} ms`;
  }
}

function drawAttention(pen, canvas, { rows, columns, weights }) {
  const wide = canvas.width / columns;
  const tall = canvas.height / rows;
  weights.forEach((weight, cell) => {
    const place = weight * (HEAT.length - 1);
    const [low, high] = [HEAT[Math.floor(place)], HEAT[Math.min(HEAT.length - 1, Math.floor(place) + 1)]];
    const [red, green, blue, alpha] = low.map((value, i) => value + (high[i] - value) * (place % 1));
    pen.fillStyle = `rgba(${red}, ${green}, ${blue}, ${alpha})`;
    pen.fillRect((cell % columns) * wide, Math.floor(cell / columns) * tall, wide, tall);
  });
}

function drawMask(pen, canvas, { rows, columns, mask }) {
  const wide = canvas.width / columns;
  const tall = canvas.height / rows;
  pen.fillStyle = "rgba(0, 0, 0, 0.65)";
  mask.forEach((inside, cell) => {
    if (!inside) pen.fillRect((cell % columns) * wide, Math.floor(cell / columns) * tall, wide, tall);
  });
  pen.strokeStyle = MASK;
  pen.lineWidth = 4;
  pen.beginPath();
  mask.forEach((inside, cell) => {
    const [column, row] = [cell % columns, Math.floor(cell / columns)];
    const [x, y] = [column * wide, row * tall];
    if (column && inside !== mask[cell - 1]) pen.rect(x, y, 0, tall);
    if (row && inside !== mask[cell - columns]) pen.rect(x, y, wide, 0);
  });
  pen.stroke();
}
