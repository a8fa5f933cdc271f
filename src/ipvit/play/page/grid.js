// The patches over the photo: clicked or painted with the mouse or a finger, or walked over with the keyboard.

export class Grid {
  constructor(box, changed) {
    this.box = box;
    this.changed = changed;
    this.side = 0;
    this.dropped = new Set();
    this.paint = null; // while a finger is down: whether patches are being dropped
    this.last = null; // where it was
    this.pressed = false; // the click that follows was a finger's, and is done with
    box.addEventListener("pointerdown", (event) => this.begin(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (this.paint = null));
    box.addEventListener("click", (event) => this.click(event));
    box.addEventListener("keydown", (event) => this.walk(event));
  }

  // Cut the photo into side x side patches; what was dropped stays where it was.
  cut(side) {
    const before = { side: this.side, dropped: this.dropped };
    this.side = side;
    this.dropped = new Set();
    this.box.style.setProperty("--side", side);
    this.box.replaceChildren(
      ...Array.from({ length: side * side }, (_, cell) => {
        const button = document.createElement("button");
        button.type = "button";
        button.tabIndex = cell ? -1 : 0;
        button.setAttribute("aria-label", `row ${Math.floor(cell / side) + 1}, column ${(cell % side) + 1}, dropped`);
        return button;
      }),
    );
    const old = (place) => Math.floor(((place + 0.5) / side) * before.side);
    for (let cell = 0; cell < side * side && before.side; cell++) {
      const was = old(Math.floor(cell / side)) * before.side + old(cell % side);
      if (before.dropped.has(was)) this.dropped.add(cell);
    }
    this.draw();
  }

  drop(cells) {
    this.dropped = new Set(cells);
    this.draw();
  }

  draw() {
    [...this.box.children].forEach((button, cell) => button.setAttribute("aria-pressed", this.dropped.has(cell)));
  }

  set(cell, dropped) {
    if (this.dropped.has(cell) === dropped) return;
    if (dropped) this.dropped.add(cell);
    else this.dropped.delete(cell);
    this.box.children[cell].setAttribute("aria-pressed", dropped);
    this.changed();
  }

  at(event) {
    const area = this.box.getBoundingClientRect();
    const part = (position, start, length) =>
      Math.min(this.side - 1, Math.max(0, Math.floor(((position - start) / length) * this.side)));
    return [part(event.clientY, area.top, area.height), part(event.clientX, area.left, area.width)];
  }

  begin(event) {
    if (event.button !== 0) return;
    const [row, column] = (this.last = this.at(event));
    const cell = row * this.side + column;
    this.paint = !this.dropped.has(cell);
    this.pressed = true;
    this.box.setPointerCapture(event.pointerId);
    this.set(cell, this.paint);
  }

  // Paint every patch between the last place and this one: a fast hand skips some.
  move(event) {
    if (this.paint === null) return;
    const [row, column] = this.at(event);
    const [lastRow, lastColumn] = this.last;
    const steps = Math.max(Math.abs(row - lastRow), Math.abs(column - lastColumn));
    for (let step = 1; step <= steps; step++) {
      const between = (from, to) => Math.round(from + ((to - from) * step) / steps);
      this.set(between(lastRow, row) * this.side + between(lastColumn, column), this.paint);
    }
    this.last = [row, column];
  }

  click(event) {
    const cell = [...this.box.children].indexOf(event.target);
    if (!this.pressed && cell >= 0) this.set(cell, !this.dropped.has(cell));
    this.pressed = false;
  }

  walk(event) {
    this.pressed = false;
    const cell = [...this.box.children].indexOf(event.target);
    const row = Math.floor(cell / this.side);
    const next = {
      ArrowLeft: cell % this.side ? cell - 1 : cell,
      ArrowRight: (cell + 1) % this.side ? cell + 1 : cell,
      ArrowUp: row ? cell - this.side : cell,
      ArrowDown: row < this.side - 1 ? cell + this.side : cell,
      Home: row * this.side,
      End: (row + 1) * this.side - 1,
    }[event.key];
    if (cell < 0 || next === undefined) return;
    event.preventDefault();
    this.box.children[cell].tabIndex = -1;
    this.box.children[next].tabIndex = 0;
    this.box.children[next].focus();
  }
}
