// The page: the photo, what is done to it, and the two networks.

import { ask, complain, latest, option } from "./ask.js";
import { Grid } from "./grid.js";
import { Panel } from "./panel.js";

const get = (id) => document.getElementById(id);
const number = (id) => Number(get(id).value);
const HINTS = {
  random: "Any patches, in a fixed random order.",
  salient: "First those that SALIENCE looks at most.",
  non_salient: "First those that SALIENCE looks at least.",
};

class Page {
  constructor(start) {
    this.start = start;
    this.photo = null;
    this.next = 0;
    this.seed = 0;
    this.byHand = false;
    this.sides = [1]; // of the shuffle grids
    this.answers = {};
    this.grid = new Grid(get("grid"), () => this.painted());
    const chosen = start.models.length > 1 ? [0, 1] : [0, 0];
    this.panels = ["left", "right"].map((side, i) => new Panel(side, start.models, chosen[i], this));
    const fail = (text) => complain(get("problem"), text);
    this.choosePatches = latest(() => this.askForPatches(), fail);
    this.showClean = latest(() => this.askForClean(), fail);
    this.fillSelects();
    this.listen();
    this.cutGrids(true);
  }

  fillSelects() {
    const named = (name) => name.replaceAll("_", " ");
    get("corruption").append(...this.start.corruptions.map((name) => option(name, named(name))));
    get("epsilon").max = this.start.limits.epsilon;
    for (const value of ["salient", "non_salient"])
      get("mode").querySelector(`[value=${value}]`).disabled = !this.start.salience;
  }

  listen() {
    const on = (id, act) => get(id).addEventListener("input", act);
    for (const id of ["mode", "loss"])
      on(id, () => {
        this.byHand = false;
        this.label();
        this.choosePatches();
      });
    on("grid-side", () => {
      this.grid.cut(number("grid-side"));
      this.regrid();
    });
    for (const id of ["fill", "shuffle", "corruption", "severity", "attack", "epsilon"]) on(id, () => this.changed());
    get("redraw").addEventListener("click", () => {
      this.seed += 1;
      this.regrid();
    });
    get("reset").addEventListener("click", () => this.reset());
    get("more").addEventListener("click", () => this.more());
    get("upload").addEventListener("click", () => get("file").click());
    get("file").addEventListener("change", (event) => this.upload(event.target));
    get("thumbnails").addEventListener("keydown", (event) => this.walk(event));
  }

  settings() {
    return {
      photo: this.photo,
      grid: this.grid.side,
      dropped: [...this.grid.dropped],
      fill: get("fill").value,
      shuffle: this.sides[number("shuffle")],
      corruption: get("corruption").value,
      severity: number("severity"),
      attack: get("attack").value,
      epsilon: number("epsilon"),
      seed: this.seed,
    };
  }

  changed() {
    this.label();
    this.panels.forEach((panel) => panel.look());
  }

  painted() {
    this.byHand = true;
    this.changed();
  }

  label() {
    const cells = this.grid.side ** 2;
    const count = this.grid.dropped.size;
    const shuffle = this.sides[number("shuffle")];
    get("loss-label").textContent = get("mode").value === "random" ? "Information loss" : "Share of the salience lost";
    get("loss-value").textContent = this.byHand ? "by hand" : `${number("loss")} %`;
    get("shuffle-value").textContent = shuffle > 1 ? `${shuffle} × ${shuffle}` : "none";
    get("severity-value").textContent = number("severity") ? `${number("severity")} of 5` : "none";
    get("epsilon-value").textContent = number("epsilon") ? `${number("epsilon")} / 255` : "none";
    const hint = HINTS[get("mode").value].replace("SALIENCE", this.start.salience ?? "");
    get("dropped").textContent = `${count} of ${cells} patches dropped (${Math.round((100 * count) / cells)} %). ${hint}`;
  }

  // Patches are dropped on any grid, the left network's own patches first. Cells that change places divide the input of
  // one network at least; the other takes the nearest grid that divides its own, and says so.
  cutGrids(first = false) {
    const models = this.panels.map((panel) => panel.model);
    const divides = (side, size) => size.every((pixels) => pixels % side === 0);
    const upTo = Array.from({ length: this.start.limits.cells }, (_, i) => i + 1);
    const all = models.map((model) => model.size);
    const sides = upTo.filter((side) => side > 1 && all.every((size) => side <= Math.min(...size)));
    const equal = upTo.filter((side) => all.some((size) => divides(side, size)));
    const own = models.map((model) => model.patches).filter((patches) => patches && patches[0] === patches[1]);
    const wanted = [...(first ? [] : [this.grid.side]), ...own.map((patches) => patches[0]), 14, 8];
    const chosen = wanted.find((side) => sides.includes(side)) ?? sides[sides.length - 1];
    get("grid-side").replaceChildren(...sides.map((side) => option(side, `${side} × ${side}`, side === chosen)));
    const before = this.sides[number("shuffle")];
    this.sides = equal.filter((side) => side <= 16);
    get("shuffle").max = this.sides.length - 1;
    get("shuffle").value = Math.max(0, this.sides.indexOf(before));
    if (chosen !== this.grid.side) this.grid.cut(chosen);
    this.label();
  }

  modelChanged(panel) {
    const side = this.grid.side;
    this.cutGrids();
    if (panel === this.panels[0]) this.showClean();
    if (side !== this.grid.side) this.regrid();
    else this.changed();
  }

  // Patches chosen by the slider are chosen anew; those dropped by hand stay.
  regrid() {
    if (this.byHand) this.changed();
    else this.choosePatches();
  }

  async askForPatches() {
    const asked = { photo: this.photo, grid: this.grid.side, mode: get("mode").value, loss: number("loss") / 100, seed: this.seed };
    const { dropped } = asked.loss && asked.photo ? await ask("cells", asked) : { dropped: [] };
    if (this.byHand || asked.grid !== this.grid.side) return;
    complain(get("problem"), "");
    this.grid.drop(dropped);
    this.changed();
  }

  async askForClean() {
    if (!this.photo) return;
    const { image } = await ask("view", { photo: this.photo, model: this.panels[0].number });
    get("clean").src = image;
    get("clean").classList.toggle("small", Math.max(...this.panels[0].model.size) < 160);
  }

  async more() {
    get("more").disabled = true;
    try {
      const { photos, next } = await ask("photos", { first: this.next });
      this.next = next;
      get("more").hidden = next === null;
      photos.forEach((photo) => this.add(photo));
      if (!this.photo && photos.length) this.choose(photos[0]);
      complain(get("problem"), photos.length ? "" : "None of these photos can be read.");
    } catch (error) {
      complain(get("problem"), error.message);
    }
    get("more").disabled = false;
  }

  add(photo, first = false) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.photo = photo.id;
    button.title = photo.caption;
    button.tabIndex = -1;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", "false");
    const image = document.createElement("img");
    image.src = photo.thumbnail;
    image.alt = photo.caption;
    button.append(image);
    button.addEventListener("click", () => this.choose(photo));
    if (first) get("thumbnails").prepend(button);
    else get("thumbnails").append(button);
  }

  choose(photo) {
    this.photo = photo.id;
    for (const button of get("thumbnails").children) {
      const chosen = button.dataset.photo === photo.id;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
    get("caption").textContent = photo.caption;
    get("clean").alt = photo.caption;
    this.showClean();
    this.regrid();
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = step && (step > 0 ? event.target.nextElementSibling : event.target.previousElementSibling);
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  async upload(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    const { upload: most } = this.start.limits;
    try {
      if (file.size > most)
        throw new Error(`the file is too large: ${(file.size / 2 ** 20).toFixed(1)} MB, and ${most / 2 ** 20} MB are the most`);
      const photo = await ask("upload", file, { "Content-Type": "application/octet-stream" });
      complain(get("upload-problem"), "");
      photo.caption = file.name;
      this.add(photo, true);
      this.choose(photo);
    } catch (error) {
      complain(get("upload-problem"), `${file.name}: ${error.message}`);
    }
  }

  reset() {
    for (const id of ["loss", "shuffle", "severity", "epsilon"]) get(id).value = 0;
    get("mode").value = "random";
    get("fill").value = "black";
    this.seed = 0;
    this.byHand = false;
    this.choosePatches();
  }

  // For narrow screens, where the answers may be out of sight, and for screen readers, which hear the last of many.
  said(panel, text) {
    this.answers[panel.side] = `${panel.model.name}: ${text}`;
    document.querySelector(`#summary .of-${panel.side} .who`).textContent = panel.model.name;
    document.querySelector(`#summary .of-${panel.side} .what`).textContent = text;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => (get("spoken").textContent = Object.values(this.answers).join("; ")), 800);
  }
}

try {
  const page = new Page(await ask("start"));
  get("main").hidden = false;
  await page.more();
} catch (error) {
  complain(get("problem"), error.message);
}
