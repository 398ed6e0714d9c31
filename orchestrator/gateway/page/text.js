// Words and elements: small functions without state.

export const STAGES = { text: "Text", unet: "U-Net", vae: "VAE" };
export const ORDER = ["queue", "text", "unet", "vae"];

/** An element with a class, a text and attributes. */
export function make(tag, className = "", text = "", attributes = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A thin bar, and the function that fills it from 0 to 1. */
export function bar() {
  const element = make("div", "bar");
  const fill = element.appendChild(make("i"));
  return [element, (share) => { fill.style.transform = `scaleX(${Math.min(1, Math.max(0, share))})`; }];
}

/** Seconds as people say them. */
export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  return value < 90 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
}

/** Set a text only where it differs: an unchanged one is no change to a screen reader either. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** How far an image is, 0 to 1: most of the work is in the U-Net. */
export function share(progress) {
  if (!progress) return 0;
  const inStage = progress.steps ? progress.step / progress.steps : 0;
  return { text: 0.02, unet: 0.04 + 0.9 * inStage, vae: 0.95 }[progress.stage] ?? 0;
}
