// Weights as a picture: a row a query, a column a key. The shade is the square root of the weight, or small ones
// could not be told from none.

const LARGE = 480; // pixels on a side, about

export class Matrix {
  /** `point(row)` is called when the pointer is over a row. */
  constructor(canvas, point) {
    Object.assign(this, { canvas, weights: [], marked: -1 });
    if (point) canvas.addEventListener("pointermove", (event) => this.over(event, point));
  }

  set(weights) {
    this.weights = weights;
    this.marked = -1;
    const rows = weights.length, columns = weights[0].length;
    this.cell = this.canvas.classList.contains("small") ? 1 : Math.max(1, Math.round(LARGE / Math.max(rows, columns)));
    this.canvas.width = columns * this.cell;
    this.canvas.height = rows * this.cell;
    this.paint();
  }

  paint() {
    const pen = this.canvas.getContext("2d"), rgb = colour(this.canvas, "--look"), cell = this.cell;
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.weights.forEach((row, y) => row.forEach((weight, x) => {
      pen.fillStyle = `rgb(${rgb} / ${Math.sqrt(weight)})`;
      pen.fillRect(x * cell, y * cell, cell, cell);
    }));
    if (this.marked < 0) return;
    pen.strokeStyle = `rgb(${colour(this.canvas, "--doubt")})`;
    pen.lineWidth = 2;
    pen.strokeRect(1, this.marked * cell, this.canvas.width - 2, Math.max(cell, 2));
  }

  mark(row) {
    if (row === this.marked) return;
    this.marked = row;
    this.paint();
  }

  over(event, point) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.weights.length);
    if (row >= 0 && row < this.weights.length) point(row);
  }
}

const colour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();
