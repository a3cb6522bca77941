// What is known of one run: columns of numbers that grow, and stay small enough to draw.

const MOST = 1000; // points of a curve that are kept
const SAMPLES = 50;
const COUNTED = ["step", "tokens", "seconds", "smoothed"];

export class Series {
  constructor(name) {
    this.name = name;
    this.version = null; // of the file, when it was last read to its end
    this.forget();
  }

  forget() {
    this.place = "";
    this.trained = this.evaluated = null;
    this.samples = [];
    this.settings = {};
    this.floors = {};
    this.unreadable = this.read = this.size = 0;
  }

  /** Take in an answer of /api/runs/metrics. True where something new came. */
  add(answer) {
    const before = this.place;
    if (answer.anew) {
      this.forget();
      this.settings = answer.settings;
      this.floors = answer.floors;
    }
    this.trained = grow(this.trained, answer.trained);
    this.evaluated = grow(this.evaluated, answer.evaluated);
    this.samples = [...this.samples, ...answer.samples].slice(-SAMPLES);
    this.unreadable += answer.unreadable;
    [this.place, this.read, this.size] = [answer.place, answer.read, answer.size];
    return this.place !== before;
  }

  /** The least of a column of evaluations: {value, step}, or null. */
  best(column) {
    let found = null;
    (this.evaluated?.[column] ?? []).forEach((value, i) => {
      if (value !== null && (!found || value < found.value)) found = { value, step: this.evaluated.step[i] };
    });
    return found;
  }
}

function grow(columns, more) {
  if (!columns) return more;
  for (const name in columns) columns[name] = columns[name].concat(more[name]);
  return columns.step.length > 2 * MOST ? thin(columns, MOST) : columns;
}

/** At most `most` of the rows: of each stretch those with the least and the greatest of each column that is measured. */
export function thin(columns, most) {
  const n = columns.step.length;
  if (n <= most) return columns;
  const measured = Object.keys(columns).filter((name) => !COUNTED.includes(name));
  const stretches = Math.max(1, Math.floor((most - 2) / (2 * measured.length)));
  const kept = new Set([0, n - 1]);
  for (let k = 0; k < stretches; k++) {
    const [first, end] = [Math.floor((k * n) / stretches), Math.floor(((k + 1) * n) / stretches)];
    for (const name of measured) extremes(columns[name], first, end).forEach((i) => kept.add(i));
  }
  const places = [...kept].sort((a, b) => a - b);
  return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, places.map((i) => values[i])]));
}

function extremes(values, first, end) {
  let low = -1, high = -1;
  for (let i = first; i < end; i++) {
    if (values[i] === null) continue;
    if (low < 0 || values[i] < values[low]) low = i;
    if (high < 0 || values[i] > values[high]) high = i;
  }
  return low < 0 ? [] : [low, high];
}
