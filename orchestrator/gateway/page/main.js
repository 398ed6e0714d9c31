// The page: what the server says goes to the store, from there to lanes and cards; what is pressed goes to the server.

import * as api from "./api.js";
import { listen } from "./feed.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { Lanes } from "./lanes.js";
import { parameters } from "./png.js";
import { Store } from "./store.js";
import { say, share } from "./text.js";
import { Viewer } from "./viewer.js";

const at = (id) => document.getElementById(id);
const announce = (text) => say(at("live"), text);
const REDRAW_MS = 60;
const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The owner's name, which is the key to this page's pictures: it stands in the address, and nowhere else. */
function owner() {
  const named = new URLSearchParams(location.hash.slice(1)).get("owner");
  if (named) return named;
  const drawn = random();
  history.replaceState(null, "", `#owner=${drawn}`);
  return drawn;
}

const name = owner();
let introduced;
const introduction = new Promise((resolve) => { introduced = resolve; });

const store = new Store((job) => {
  gallery.show(job);
  redraw();
});
const gallery = new Gallery(at("gallery"), act);
const viewer = new Viewer(at("viewer"), () => gallery.done(), act);
const lanes = new Lanes(at("lanes"), kill);
const form = new Form(at("compose"), draw);

async function draw(request, count) {
  const { group } = await introduction;
  for (let number = 0; number < count; number++) {
    const seed = request.seed === undefined ? {} : { seed: request.seed + number };
    submit(group, { ...request, ...seed });
  }
  announce(count === 1 ? "Queued." : `${count} pictures queued.`);
}

async function submit(group, request) {
  const id = `${group}-${random()}`;
  store.expect(id, request);
  try {
    await api.submit({ ...request, id, owner: name });
  } catch (error) {
    store.fail(id, error.message);
    announce(error.message);
  }
}

function act(what, card) {
  const { job, image } = card;
  const request = job.request ?? {};
  if (what === "open") viewer.open(card);
  if (what === "use") form.use(request, image?.seed);
  if (what === "cancel") api.cancel(job.id).catch((error) => announce(error.message));
  if (what === "retry") draw(sendable(request), 1);
  if (what === "again") draw({ ...sendable(request), seed: undefined }, 1);
  if (what === "download") download(card.file, image, request.prompt);
}

/** A request as it was told, without what it left open. */
function sendable(request) {
  const fields = Object.entries(request).filter(([, value]) => value !== null && value !== undefined);
  return { preview_every: Math.max(1, Math.round((request.steps ?? form.defaultSteps) / 12)), ...Object.fromEntries(fields) };
}

function download(file, image, prompt) {
  const link = document.createElement("a");
  link.href = file;
  const words = (prompt ?? "picture").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
  link.download = `${words}-${image.seed}.${image.format}`;
  link.click();
}

async function kill(stage) {
  try {
    await api.kill(stage);
    announce(`${stage} was killed. Its work goes on when it is back.`);
  } catch (error) {
    announce(error.message);
  }
}

let drawn = 0;
/** Lanes and title, some times a second however much is said: the machine that paints may be the one that computes. */
function redraw() {
  drawn ||= setTimeout(() => {
    drawn = 0;
    lanes.showCards(wanted());
    entitle();
  }, REDRAW_MS);
}

/** Where every image is: this page's from its own events, everybody else's from the shared ones. */
function wanted() {
  const found = new Map();
  const own = new Set([...store.jobs.values()].flatMap((job) => job.keys));
  for (const job of store.jobs.values()) {
    job.keys.forEach((key, index) => {
      const progress = job.progress.get(index);
      const place = { lane: progress?.stage ?? "queue", step: progress?.step, steps: progress?.steps };
      if (job.images.has(index)) place.lane = "out";
      const gone = job.state === "failed" || job.state === "cancelled";
      const src = job.previews.get(index)?.src;
      found.set(key, { ...place, gone, prompt: job.request?.prompt ?? "", src, position: job.position });
    });
  }
  for (const card of store.cards) if (!own.has(card.key)) found.set(card.key, card);
  return found;
}

function entitle() {
  const work = store.inWork();
  const done = work.map((job) => Math.max(0, ...[...job.progress.values()].map(share)));
  const percent = Math.round((100 * done.reduce((sum, each) => sum + each, 0)) / Math.max(1, work.length));
  document.title = work.length ? `${percent} % · ${work.length} in work · Triptych` : "Triptych";
}

function showPipeline() {
  const { pipeline } = store;
  lanes.showPipeline(pipeline);
  form.offer(pipeline);
  say(at("model"), pipeline.model ?? "");
  const down = pipeline.stages.filter((stage) => stage.state !== "serving");
  const serves = pipeline.state === "serving";
  health(serves && down.length ? "degraded" : pipeline.state, down.map((each) => `${each.name} ${each.state}`).join(", "));
  say(at("rate"), (pipeline.images_per_s ?? 0).toFixed(1));
  const limit = pipeline.bottleneck;
  const advice = limit?.change ? `; would help: ${limit.change}` : "";
  say(at("limit"), limit ? `${limit.why}${advice}` : "no figures yet");
}

function health(state, words = "") {
  at("health").dataset.state = state;
  say(at("health"), words || state);
}

listen(name, (kind, data) => {
  if (store.take(kind, data)) {
    if (kind === "job" && store.sawNow === null && data.state === "done") announce(`Done: ${data.prompt}`);
    return;
  }
  if (kind === "hello") {
    store.hello = data;
    lanes.playground = data.playground;
    form.introduce(data);
    introduced(data);
  }
  if (kind === "pipeline") {
    store.takePipeline(data);
    showPipeline();
  }
  if (kind === "cards") {
    store.cards = data;
    redraw();
  }
  if (kind === "lost") health("unreachable", "no connection; trying again");
  if (kind === "current") showPipeline();
});

for (const kind of ["dragover", "drop"]) {
  addEventListener(kind, async (event) => {
    event.preventDefault();
    const file = kind === "drop" && event.dataTransfer?.files[0];
    if (!file) return;
    const found = await parameters(file);
    if (found) form.use(found, found.seed);
    announce(found ? "Parameters taken from the picture." : "This file carries no parameters of Triptych.");
  });
}
