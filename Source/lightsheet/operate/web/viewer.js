// The slice viewer: planes come from the server as pictures; place and contrast are in the address.

const $ = (id) => document.getElementById(id);
const AXES = ["z", "y", "x"];
const PICTURES = { z: "xy", y: "xz", x: "yz" };
const STEPS = 1000;

export class Viewer {
  constructor(changed) {
    this.changed = changed;
    this.layers = [];
    this.job = "";
    this.range = {};
    for (const id of ["t", "z", "y", "x", "low", "high"]) $(id).addEventListener("input", () => this.draw());
    for (const id of ["over", "minus", "project"]) $(id).addEventListener("change", () => this.draw());
    $("layer").addEventListener("change", () => { this.fitContrast(); this.draw(); });
    $("auto").addEventListener("click", () => { this.fitContrast(); this.draw(); });
    $("bright").addEventListener("click", () => this.goToBright());
    for (const axis of AXES) $(PICTURES[axis]).addEventListener("click", (event) => this.pick(axis, event));
  }

  get shown() { return this.layers.find((one) => one.name === $("layer").value) || this.layers[0]; }

  open(job, layers, state) {
    this.job = job;
    this.layers = layers;
    $("viewer").hidden = layers.length === 0;
    if (!layers.length) return;
    const labels = layers.filter((one) => one.labels);
    $("layer").replaceChildren(...layers.map((one) => new Option(one.name, one.name)));
    const first = layers.find((one) => one.name === "fused") || layers.find((one) => !one.labels) || layers[0];
    $("layer").value = state.layer && layers.some((one) => one.name === state.layer) ? state.layer : first.name;
    $("over-box").hidden = labels.length === 0 || layers.every((one) => one.labels);
    $("minus-box").hidden = !layers.some((one) => one.name === "fused");
    const [times, z, y, x] = this.shown.shape;
    const sizes = { t: times, z, y, x };
    for (const [id, size] of Object.entries(sizes)) {
      $(id).max = size - 1;
      $(id).value = state[id] ?? (id === "t" ? 0 : Math.floor(size / 2));
    }
    $("t-box").hidden = times < 2;
    $("z-box").hidden = z < 2;
    document.querySelector(".planes").classList.toggle("flat", z < 2);
    this.fitContrast();
    if (state.low !== undefined) { $("low").value = state.low; $("high").value = state.high; }
    $("over").checked = state.over !== "0";
    $("minus").checked = state.minus === "1";
    $("project").checked = state.project === "1";
    this.tellFacts();
    this.draw();
  }

  tellFacts() {
    const one = this.layers[this.layers.length - 1];
    const [times, z, y, x] = one.shape;
    const size = one.full.join(" x ");
    const um = one.in_pixels ? "size of a pixel not known" : `voxels of ${one.spacing_um.map((v) => +v.toPrecision(4)).join(", ")} um`;
    const coarse = one.full.join() === [z, y, x].join() ? "" : `; shown on ${z} x ${y} x ${x}, downloads are full`;
    const objects = this.layers.filter((l) => l.labels).map((l) => `; ${l.name}: ${l.objects}`).join("");
    $("facts").textContent = `${times > 1 ? `${times} time points, ` : ""}${size} (Z, Y, X), ${um}${coarse}${objects}`;
  }

  fitContrast() {
    const one = this.shown;
    for (const box of document.querySelectorAll(".contrast")) box.hidden = one.labels;
    this.range = { low: Math.min(0, one.low), width: 2 * (one.high - Math.min(0, one.low)) };
    $("low").value = Math.round(STEPS * (one.low - this.range.low) / this.range.width);
    $("high").value = Math.round(STEPS * (one.high - this.range.low) / this.range.width);
  }

  intensity(id) { return this.range.low + (this.range.width * $(id).value) / STEPS; }

  goToBright() {
    const one = this.layers.find((layer) => layer.bright);
    if (!one) return;
    one.bright.forEach((place, number) => { $(AXES[number]).value = place; });
    this.draw();
  }

  pick(axis, event) {
    const box = event.target.getBoundingClientRect();
    const across = axis === "x" ? "z" : "x";
    const down = axis === "z" ? "y" : axis === "y" ? "z" : "y";
    const share = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    $(across).value = Math.floor(share.x * (+$(across).max + 1));
    $(down).value = Math.floor(share.y * (+$(down).max + 1));
    this.draw();
  }

  address(axis) {
    const one = this.shown;
    const labels = this.layers.find((layer) => layer.labels);
    const query = new URLSearchParams({ layer: one.name, axis, index: $(axis).value, time: $("t").value });
    if (!one.labels) { query.set("low", this.intensity("low")); query.set("high", this.intensity("high")); }
    if (labels && !one.labels && $("over").checked && !$("over-box").hidden) query.set("over", labels.name);
    if ($("minus").checked && one.name === "fused") query.set("minus", "image");
    if ($("project").checked) query.set("project", "true");
    return `/api/jobs/${this.job}/picture.png?${query}`;
  }

  draw() {
    if (!this.layers.length) return;
    const one = this.shown;
    const [, z, y, x] = one.shape;
    const [uz, uy, ux] = one.spacing_um;
    const sides = { z: [y * uy, x * ux], y: [z * uz, x * ux], x: [y * uy, z * uz] };
    for (const axis of AXES) {
      const image = $(PICTURES[axis]);
      if (z < 2 && axis !== "z") continue;
      const turned = axis === "x" ? this.turned(axis) : this.address(axis);
      image.style.aspectRatio = `${sides[axis][1]} / ${sides[axis][0]}`;
      if (image.dataset.at !== turned) { image.dataset.at = turned; image.src = turned; }
    }
    for (const id of ["t", "z", "y", "x"]) $(`${id}-out`).textContent = `${+$(id).value + 1}/${+$(id).max + 1}`;
    $("xy-name").textContent = $("project").checked ? "projection along Z" : `plane ${+$("z").value + 1} across Z`;
    this.changed(this.state());
  }

  turned(axis) { return `${this.address(axis)}&turned=true`; }

  state() {
    const values = { job: this.job, layer: this.shown ? this.shown.name : "" };
    for (const id of ["t", "z", "y", "x", "low", "high"]) values[id] = $(id).value;
    for (const id of ["over", "minus", "project"]) values[id] = $(id).checked ? "1" : "0";
    return values;
  }
}
