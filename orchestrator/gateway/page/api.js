// What the page asks of the server. Every refusal becomes an Error with the server's own sentence.

async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The server cannot be reached. Try again when it is back.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error?.message ?? `The server answered ${answer.status}.`);
  return told;
}

export const submit = (request) => call("POST", "v1/jobs", request);
export const cancel = (id) => call("DELETE", `v1/jobs/${encodeURIComponent(id)}`);
export const kill = (stage) => call("POST", `v1/playground/kill/${encodeURIComponent(stage)}`);
