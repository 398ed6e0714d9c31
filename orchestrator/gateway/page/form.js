// The form: what is asked for. It is never disabled, and never emptied: every press queues.

import { drawChips, randomScene } from "./chips.js";
import { make, say } from "./text.js";

const NUMBERS = ["steps", "guidance_scale", "seed"];
const PREVIEWS = 12;

const narrow = matchMedia("(max-width: 860px)");

export class Form {
  /** `submit(request, count)` is called at every press. */
  constructor(element, submit) {
    this.element = element;
    this.fields = element.elements;
    this.problem = element.querySelector("#problem");
    this.world = null;
    this.defaultSteps = 25;
    element.noValidate = true; // its own sentence, in one place, and the focus on the field
    // On a phone the pipeline would be far below all of them.
    if (narrow.matches) for (const fold of element.querySelectorAll("details")) fold.open = false;
    element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#press(submit);
    });
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#press(submit);
      }
    });
  }

  /** What the server can do: suggestions and schedules. */
  introduce(hello) {
    const schedule = this.fields.schedule;
    if (schedule.options.length === 1) schedule.append(...hello.schedules.map((name) => new Option(name, name)));
    if (!hello.world || this.world) return;
    this.world = hello.world;
    this.fields.prompt.placeholder = randomScene(this.world);
    this.fields.negative_prompt.placeholder = this.world.negative[0];
    this.element.querySelector("#world").hidden = false;
    drawChips(this.element.querySelector("#chips"), this.world, (text) => { this.fields.prompt.value = text; });
  }

  /** Sizes and defaults of the model. */
  offer(pipeline) {
    const size = this.fields.size;
    const sizes = (pipeline.sizes ?? []).map(([width, height]) => `${width}x${height}`);
    if (sizes.length && sizes.join() !== [...size.options].map((option) => option.value).join()) {
      size.replaceChildren(...sizes.map((each) => new Option(each.replace("x", " × "), each)));
    }
    if (pipeline.default_steps) {
      this.defaultSteps = pipeline.default_steps;
      this.fields.steps.placeholder = String(pipeline.default_steps);
    }
  }

  /** Fill in the parameters of a picture that was made. */
  use(request, seed) {
    for (const name of ["prompt", "negative_prompt", "steps", "guidance_scale", "schedule"]) {
      this.fields[name].value = request[name] ?? "";
    }
    this.fields.seed.value = seed ?? request.seed ?? "";
    const size = `${request.width}x${request.height}`;
    if ([...this.fields.size.options].some((option) => option.value === size)) this.fields.size.value = size;
    this.fields.prompt.focus();
    this.element.scrollIntoView({ block: "nearest" });
  }

  #press(submit) {
    const fields = this.fields;
    if (!fields.prompt.value.trim() && this.world) {
      fields.prompt.value = fields.prompt.placeholder;
      fields.prompt.placeholder = randomScene(this.world);
    }
    const wrong = this.#wrong();
    this.problem.hidden = !wrong;
    if (wrong) {
      say(this.problem, wrong[1]);
      wrong[0].focus();
      return;
    }
    submit(this.#request(), Number(fields.count.value));
  }

  #wrong() {
    const { prompt } = this.fields;
    if (!prompt.value.trim()) return [prompt, "Write what you want to see first."];
    for (const field of this.element.querySelectorAll("input[type=number]")) {
      if (field.id === "count" && !field.value) return [field, "Say how many pictures: 1 to 10."];
      if (!field.validity.valid) {
        return [field, `${field.closest("label").textContent.trim()}: from ${field.min} to ${field.max}.`];
      }
    }
    return null;
  }

  #request() {
    const fields = this.fields;
    const request = { prompt: fields.prompt.value, negative_prompt: fields.negative_prompt.value };
    for (const name of NUMBERS) if (fields[name].value !== "") request[name] = Number(fields[name].value);
    if (fields.schedule.value) request.schedule = fields.schedule.value;
    if (fields.size.value) [request.width, request.height] = fields.size.value.split("x").map(Number);
    request.preview_every = Math.max(1, Math.round((request.steps ?? this.defaultSteps) / PREVIEWS));
    return request;
  }
}
