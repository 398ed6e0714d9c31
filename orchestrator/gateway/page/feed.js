// The feed: one stream of server-sent events, which the browser opens again when it breaks.

const KINDS = ["hello", "pipeline", "cards", "job", "waiting", "progress", "preview", "current"];

/** Call `told(kind, data)` with all that the server says, and `told("lost")` while it says nothing. */
export function listen(owner, told) {
  let source = null;
  let again = 0;
  const open = () => {
    source = new EventSource(`v1/feed?owner=${encodeURIComponent(owner)}`);
    for (const kind of KINDS) source.addEventListener(kind, (event) => told(kind, JSON.parse(event.data)));
    source.addEventListener("error", () => {
      told("lost");
      // A refusal ends an EventSource for good; a gateway that is started again refuses for a moment.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(again);
        again = setTimeout(open, 1000);
      }
    });
  };
  open();
}
