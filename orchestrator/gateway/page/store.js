// What is known of this page's jobs and of the pipeline. Everything comes from the server; nothing is drawn here.

export class Store {
  /** `changed(job)` is called for each job that has changed. */
  constructor(changed) {
    this.jobs = new Map();
    this.pipeline = { stages: [] };
    this.cards = [];
    this.hello = null;
    this.changed = changed;
    this.sawNow = null;
  }

  /** A job that the server has not told of yet: its cards are there at once. */
  expect(id, request) {
    const job = this.#job(id);
    Object.assign(job, { request, created: Date.now() / 1000, state: "queued" });
    this.changed(job);
  }

  /** A job that the server has refused, or does not know any more. */
  fail(id, message) {
    const job = this.#job(id);
    Object.assign(job, { state: "failed", error: { message } });
    this.changed(job);
  }

  /** Take in what the feed says of jobs; whether it was that. */
  take(kind, data) {
    if (kind === "hello") this.sawNow = new Set();
    if (kind === "current") this.#settle();
    if (!["job", "waiting", "progress", "preview"].includes(kind)) return false;
    const job = this.#job(data.id);
    if (kind === "job") this.#describe(job, data);
    if (kind === "waiting") Object.assign(job, { position: data.position, eta: data.eta_s });
    if (kind === "progress") {
      if (job.state === "queued") job.state = "running";
      if (data.eta_s !== null) job.eta = data.eta_s;
      job.progress.set(data.index, data);
    }
    if (kind === "preview") job.previews.set(data.index, data);
    this.changed(job);
    return true;
  }

  /** The newest facts of the pipeline. Notes which jobs have seen a stage die. */
  takePipeline(data) {
    for (const stage of data.stages) {
      const before = this.pipeline.stages.find((each) => each.name === stage.name);
      if (before && stage.restarts > before.restarts) this.#survive(stage);
    }
    this.pipeline = data;
  }

  /** Jobs that are not over. */
  inWork() {
    return [...this.jobs.values()].filter((job) => job.state === "queued" || job.state === "running");
  }

  #job(id) {
    let job = this.jobs.get(id);
    if (!job) {
      job = { id, state: "queued", created: 0, keys: [], position: 0, eta: null, request: null, error: null };
      Object.assign(job, { progress: new Map(), previews: new Map(), images: new Map(), notes: new Map() });
      this.jobs.set(id, job);
    }
    return job;
  }

  #describe(job, data) {
    this.sawNow?.add(job.id);
    Object.assign(job, { state: data.state, created: data.created, keys: data.keys, error: data.error });
    Object.assign(job, { position: data.position, eta: data.eta_s, request: data.request ?? job.request });
    job.progress = new Map(data.progress.map((each) => [each.index, each]));
    job.images = new Map(data.images.map((image) => [image.index, image]));
    for (const index of job.images.keys()) job.previews.delete(index);
  }

  /** After the feed was opened anew: what it did not tell of is not in work any more. */
  #settle() {
    for (const job of this.inWork()) {
      // One that was submitted in this moment is on its way.
      const fresh = Date.now() / 1000 - job.created < 5;
      if (!this.sawNow?.has(job.id) && !fresh) this.fail(job.id, "The server was started anew and knows nothing of it.");
    }
    this.sawNow = null;
  }

  #survive(stage) {
    for (const job of this.inWork()) {
      for (const [index, at] of job.progress) {
        if (at.stage !== stage.kind || job.images.has(index)) continue;
        const where = at.steps > 1 ? ` at step ${at.step}` : "";
        job.notes.set(index, `${stage.name} died${where}, the next went on`);
        this.changed(job);
      }
    }
  }
}
