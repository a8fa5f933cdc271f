"use strict";
// Charts are drawings whose marks carry data-series and, as aria-label, what is shown under the pointer.

const REACH = 24; // pixels from the pointer to the mark it shows

for (const svg of document.querySelectorAll(".chart svg")) {
  const marks = [...svg.querySelectorAll("[data-series]")];
  const names = JSON.parse(svg.dataset.names);
  const entries = [];
  for (const label of svg.querySelectorAll(".role-legend-label text")) {
    if (!names.includes(label.textContent)) continue;
    const entry = label.closest(".role-legend-label").parentNode;
    entry.setAttribute("role", "button");
    entry.setAttribute("tabindex", "0");
    entry.setAttribute("aria-pressed", "true");
    entry.setAttribute("aria-label", label.textContent);
    entries.push({ entry, name: label.textContent });
  }
  const shown = ({ entry }) => entry.getAttribute("aria-pressed") === "true";
  const show = (chosen, on) => {
    chosen.entry.setAttribute("aria-pressed", String(on));
    for (const mark of marks) if (names[mark.dataset.series] === chosen.name) mark.classList.toggle("hidden", !on);
  };
  for (const chosen of entries) {
    const act = (alone) => {
      if (!alone) return show(chosen, !shown(chosen));
      const already = entries.every((other) => shown(other) === (other === chosen));
      for (const other of entries) show(other, already || other === chosen); // once more brings all back
    };
    chosen.entry.addEventListener("click", (event) => act(event.shiftKey));
    chosen.entry.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act(event.shiftKey);
    });
  }
  hover(svg, marks.filter((mark) => mark.hasAttribute("aria-label")));
}

function hover(svg, marks) {
  const distance = (box, x, y) =>
    Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
  const lines = [...svg.querySelectorAll(".mark-line path")];
  // places along the lines and of the marks, which the text is kept off
  const places = () => marks.filter((mark) => !mark.classList.contains("hidden")).map((mark) => {
    const box = mark.getBoundingClientRect();
    return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  }).concat(lines.filter((line) => !line.classList.contains("hidden")).flatMap((line) => {
    const [long, matrix] = [line.getTotalLength(), line.getScreenCTM()];
    return Array.from({ length: 41 }, (_, i) => {
      const place = line.getPointAtLength(long * i / 40).matrixTransform(matrix);
      return [place.x, place.y];
    });
  }));
  svg.addEventListener("pointermove", ({ clientX: x, clientY: y }) => {
    let nearest = null, least = REACH;
    for (const mark of marks) {
      if (mark.classList.contains("hidden")) continue;
      const far = distance(mark.getBoundingClientRect(), x, y);
      if (far < least) [nearest, least] = [mark, far];
    }
    tell(nearest?.getAttribute("aria-label"), x, y, nearest ? places() : []);
  });
  svg.addEventListener("pointerleave", () => tell());
}

function tell(text, x, y, avoided) {
  let tip = document.getElementById("tip");
  if (!tip) {
    tip = document.createElement("div");
    tip.id = "tip";
    tip.setAttribute("role", "status");
    document.body.append(tip);
  }
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  let best = null;
  for (const far of [16, 40, 80, 130]) {
    for (const [dx, dy] of [[1, -1], [1, 1], [-1, -1], [-1, 1], [0, -1], [0, 1], [1, 0], [-1, 0]]) {
      const left = dx > 0 ? x + far : dx < 0 ? x - far - width : x - width / 2;
      const top = dy > 0 ? y + far : dy < 0 ? y - far - height : y - height / 2;
      const out = left < 4 || top < 4 || left + width > innerWidth - 4 || top + height > innerHeight - 4;
      const covered = avoided.filter(([a, b]) => a > left - 3 && a < left + width + 3 && b > top - 3 && b < top + height + 3);
      const cost = (out ? 1000 : 0) + covered.length;
      if (best === null || cost < best.cost) best = { cost, left, top };
    }
  }
  tip.style.left = `${Math.max(4, Math.min(best.left, innerWidth - width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(best.top, innerHeight - height - 4))}px`;
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.parentNode.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch { // pages from a file may not write there: the text is selected instead
      getSelection().selectAllChildren(text);
      button.textContent = "selected: press Ctrl+C";
    }
  });
}

for (const button of document.querySelectorAll(".chart .save")) {
  button.addEventListener("click", () => {
    const plots = [...button.closest(".chart").querySelectorAll("svg")];
    const copy = plots.find((svg) => svg.getBoundingClientRect().width > 0).cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("xmlns:xlink", "http://www.w3.org/1999/xlink");
    copy.setAttribute("font-family", "Liberation Sans, Arial, Helvetica, sans-serif");
    copy.setAttribute("style", "background: white");
    for (const mark of copy.querySelectorAll(".hidden")) mark.remove();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    link.download = `${button.dataset.name}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
