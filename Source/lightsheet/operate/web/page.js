// The flow of the page: a file, is it right, run, look. All work is done by the server.

import { Viewer } from "/assets/viewer.js";

const $ = (id) => document.getElementById(id);
const TASKS = {
  fuse: "Fuse", segment3d: "Segment 3D", segment2d: "Segment 2D", track: "Track", states: "States over time",
};
const OVER = ["done", "failed", "stopped"];
const WATCH_MS = 700;
const LEAVES_US = "The server can't be reached. Is it still running?";
let job = null;
let task = "";
let watching = 0;
let about = { samples: [], max_upload_bytes: Infinity };
const viewer = new Viewer((state) => remember(state));

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "X-Lightsheet": "1", ...options.headers } });
  } catch {
    throw new Error(LEAVES_US);
  }
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(content.error || `The server answered ${answer.status}.`);
  return content;
}

const post = (path, content) => ask(path, {
  method: "POST", body: JSON.stringify(content ?? {}), headers: { "Content-Type": "application/json" },
});

function tell(text) { $("message").textContent = text; }

async function guarded(work) {
  tell("");
  try { return await work(); } catch (error) { tell(error.message); return null; }
}

// 1. An image

function send(file) {
  if (file.size > about.max_upload_bytes) {
    tell(`${file.name}: larger than the server takes (${(about.max_upload_bytes / 2 ** 30).toFixed(1)} GiB).`);
    return;
  }
  tell("");
  const request = new XMLHttpRequest();
  $("upload").hidden = false;
  request.upload.onprogress = (event) => { $("upload").value = event.loaded / Math.max(1, event.total); };
  request.onloadend = () => {
    $("upload").hidden = true;
    let content = {};
    try { content = JSON.parse(request.responseText); } catch { content = { error: LEAVES_US }; }
    if (request.status !== 200) { tell(content.error || LEAVES_US); return; }
    uploaded(content);
  };
  request.open("POST", `/api/uploads?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("X-Lightsheet", "1");
  request.send(file);
}

function uploaded(content) {
  show(content);
  history.replaceState(null, "", `#job=${content.id}`);
  $("check").scrollIntoView({ block: "start" });
  $("run").focus();
  refresh();
}

// 2. Is this right?

function show(content) {
  job = content;
  watching += 1;
  $("check").hidden = content.state !== "uploaded";
  $("work").hidden = content.state === "uploaded";
  if (content.state === "uploaded") fill(content);
}

function fill(content) {
  const look = content.look;
  const [depth, height, width] = look.shape;
  const parts = [
    `${content.name}: ${depth > 1 ? `${depth} planes of ` : "one plane of "}${height} x ${width} (${depth > 1 ? "Z, " : ""}Y, X)`,
    look.type,
  ];
  if (look.frames > 1) parts.push(`${look.frames} time points`);
  if (look.channels > 1) parts.push(`${look.channels} channels`);
  if (look.labels) parts.push("looks like labels of objects");
  $("what").textContent = `${parts.join(", ")}.`;
  ["z", "y", "x"].forEach((axis, number) => {
    const value = look.spacing_um[number];
    $(`um-${axis}`).value = value === null ? "" : +value.toPrecision(6);
  });
  options("channel", look.channels, (n) => n);
  options("time", look.frames, (n) => n);
  $("flat").checked = false;
  $("stack").checked = false;
  $("each").checked = false;
  const sample = about.samples.find((one) => one.name === content.name);
  $("diameter").value = sample && sample.diameter_um ? sample.diameter_um : "";
  $("physics").checked = false;
  $("stained").value = "";
  $("light").value = "";
  $("choice").hidden = true;
  const given = content.options && content.options.task ? content.options : null;
  choose(given ? given.task : sample ? sample.tasks[0] : likely(look));
}

function options(id, count, name) {
  $(id).replaceChildren(...Array.from({ length: count }, (_, n) => new Option(name(n), n)));
}

function likely(look) {
  if (look.frames > 1) return "track";
  if (look.shape[0] < 2) return "segment2d";
  return "fuse";
}

function choose(name) {
  task = name;
  const look = job.look;
  const deep = look.shape[0] > 1;
  for (const button of $("tasks").children) button.setAttribute("aria-pressed", button.dataset.task === name);
  const movie = name === "track" || name === "states";
  $("channel-box").hidden = look.channels < 2;
  $("time-box").hidden = look.frames < 2 || movie;
  $("flat-box").hidden = !(movie && deep && look.frames < 2);
  const several = look.frames > 1 ? look.frames : look.channels;
  $("stack-box").hidden = deep || several < 2 || !(name === "fuse" || name === "segment3d");
  $("stack-what").textContent = look.frames > 1 ? `the ${several} time points` : `the ${several} channels`;
  if (!$("stack-box").hidden && $("stack").checked) $("channel-box").hidden = $("time-box").hidden = true;
  $("each-box").hidden = !(name === "segment2d" && deep);
  $("which").hidden = [...$("which").querySelectorAll("label")].every((label) => label.hidden);
  for (const id of ["stained-box", "light-box", "physics-box", "why"]) $(id).hidden = name !== "fuse";
  $("diameter-box").hidden = name === "fuse" || (movie && look.labels);
  $("how").hidden = [...$("how").children].slice(1).every((part) => part.hidden);
  const planar = name === "segment2d" || (movie && !deep);
  $("um-z").parentElement.hidden = planar;
  const known = ["y", "x"].every((axis) => $(`um-${axis}`).value !== "");
  $("diameter-unit").textContent = known ? "um" : "pixels";
  $("size-note").textContent = planar && !known ? "not known; not needed" : "";
}

function asked() {
  const um = ["z", "y", "x"].map((axis) => $(`um-${axis}`).value);
  if (um[0] === "" && um[1] !== "" && $("um-z").parentElement.hidden) um[0] = "1";
  if ($("flat").checked && um[1] !== "") um[0] = um[0] || "1";
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  const some = (id) => !$(`${id}-box`).hidden;
  return {
    task,
    spacing_um: um.every((value) => value !== "") ? um.map(Number) : null,
    channel_index: some("channel") ? number("channel") : null,
    time: some("time") ? number("time") : null,
    stained: some("stained") && $("stained").value ? $("stained").value : null,
    diameter_um: some("diameter") ? number("diameter") : null,
    physics: some("physics") && $("physics").checked,
    light: some("light") && $("light").value ? $("light").value : null,
    each_plane: some("each") && $("each").checked,
    flat: some("flat") && $("flat").checked,
    stack: some("stack") && $("stack").checked,
  };
}

// 3. The result

async function watch(number) {
  const mine = (watching += 1);
  while (mine === watching) {
    const now = await guarded(() => ask(`/api/jobs/${number}`));
    if (!now || mine !== watching) return;
    job = now;
    follow(now);
    if (OVER.includes(now.state)) {
      if (now.state === "done") await result(now);
      refresh();
      return;
    }
    await new Promise((later) => setTimeout(later, WATCH_MS));
  }
}

function follow(now) {
  $("check").hidden = true;
  $("work").hidden = false;
  $("status").textContent = status(now);
  const told = now.progress || {};
  $("bar").hidden = now.state !== "running";
  if (told.total) $("bar").value = told.done / told.total; else $("bar").removeAttribute("value");
  $("stop").hidden = !["waiting", "running"].includes(now.state);
  $("again").hidden = !OVER.includes(now.state);
  $("done").hidden = $("viewer").hidden = now.state !== "done";
  $("log").textContent = now.log;
  $("warnings").replaceChildren(...(now.warnings || []).map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
}

function status(now) {
  const title = `${now.name}, ${TASKS[now.task]}`;
  if (now.state === "waiting") return `${title}: waits, ${now.place} before it.`;
  if (now.state === "failed") return `${title}: ${now.error}`;
  if (now.state === "stopped") return `${title}: stopped.`;
  if (now.state === "done") return `${title}: done in ${seconds(now.ended - now.started)}.`;
  const told = now.progress || {};
  const left = told.done ? `, about ${seconds((told.s * (told.total - told.done)) / told.done)} left` : "";
  const step = told.total ? `${told.label} ${told.done} of ${told.total}${left}` : told.label || "starts";
  return `${title}: ${step} (${seconds(now.now - now.started)} so far).`;
}

function seconds(value) {
  const whole = Math.max(0, Math.round(value));
  return whole < 100 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}

async function result(now) {
  const layers = await guarded(() => ask(`/api/jobs/${now.id}/layers`));
  if (!layers) return;
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  viewer.open(now.id, layers, state.job === now.id ? state : {});
  $("files").replaceChildren(...now.files.map((file) => {
    const link = document.createElement("a");
    link.href = `/api/jobs/${now.id}/files/${file.name.split("/").map(encodeURIComponent).join("/")}`;
    link.download = "";
    link.textContent = `${file.name} (${(file.bytes / 1024).toFixed(0)} KiB)`;
    const line = document.createElement("li");
    line.append(link);
    return line;
  }));
  $("commands").textContent = now.commands.join("\n");
}

// Earlier

async function refresh() {
  const all = await ask("/api/jobs").catch(() => null);
  if (!all) return;
  $("jobs").replaceChildren(...all.map((one) => {
    const line = document.createElement("li");
    const name = document.createElement("span");
    name.className = "name";
    const when = new Date(one.created * 1000).toLocaleString();
    name.textContent = `${one.name}: ${one.task ? `${TASKS[one.task]}, ` : ""}${one.state} (${when})`;
    const open = button("Open", () => opened(one.id), `Open ${one.name}`);
    line.append(name, open);
    if (OVER.includes(one.state) || one.state === "uploaded") {
      line.append(button("Remove", () => guarded(async () => {
        await ask(`/api/jobs/${one.id}`, { method: "DELETE" });
        if (job && job.id === one.id) { watching += 1; $("work").hidden = $("check").hidden = true; }
        refresh();
      }), `Remove ${one.name}`));
    }
    return line;
  }));
}

function button(text, work, label) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "plain";
  made.textContent = text;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", work);
  return made;
}

async function opened(number) {
  const one = await guarded(() => ask(`/api/jobs/${number}`));
  if (!one) return;
  show(one);
  if (!location.hash.includes(one.id)) history.replaceState(null, "", `#job=${one.id}`);
  if (one.state !== "uploaded") watch(one.id);
}

function remember(state) { history.replaceState(null, "", `#${new URLSearchParams(state)}`); }

function listen() {
  $("file").addEventListener("change", () => { if ($("file").files[0]) send($("file").files[0]); $("file").value = ""; });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    $("drop").addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
    });
  }
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(async () => {
      const begun = await post(`/api/jobs/${job.id}/start`, asked());
      follow({ ...begun, state: begun.state });
      watch(begun.id);
      refresh();
    });
  });
  $("why").addEventListener("click", () => guarded(async () => {
    $("choice").hidden = false;
    $("choice").textContent = "The image is measured ...";
    try {
      $("choice").textContent = (await post(`/api/jobs/${job.id}/choice`, asked())).text;
    } catch (error) { $("choice").hidden = true; throw error; }
  }));
  $("stack").addEventListener("change", () => choose(task));
  $("stop").addEventListener("click", () => guarded(() => post(`/api/jobs/${job.id}/stop`)));
  $("again").addEventListener("click", () => guarded(async () => {
    watching += 1;
    const copy = job.state === "done" ? await post(`/api/jobs/${job.id}/copy`) : job;
    show({ ...copy, state: "uploaded" });
    refresh();
  }));
  $("link").addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href).catch(() => {});
    $("status").textContent = `Link to this view: ${location.href}`;
  });
  window.addEventListener("hashchange", () => fromAddress());
}

function fromAddress() {
  const number = new URLSearchParams(location.hash.slice(1)).get("job");
  if (number && (!job || job.id !== number)) opened(number);
}

async function begin() {
  $("tasks").replaceChildren(...Object.entries(TASKS).map(([name, title]) => {
    const made = button(title, () => choose(name));
    made.dataset.task = name;
    return made;
  }));
  listen();
  about = await ask("/api/about");
  $("version").textContent = about.version;
  $("samples").replaceChildren(...about.samples.map((sample) => button(
    sample.title, () => guarded(async () => uploaded(await post(`/api/samples/${sample.name}`))))));
  await refresh();
  fromAddress();
}

begin().catch((error) => tell(error.message));
