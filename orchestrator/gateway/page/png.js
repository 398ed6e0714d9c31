// The parameters that a PNG of Triptych carries: a text chunk `triptych` with JSON.

const SIGNATURE = 8;

/** The parameters in a file; null where it has none. */
export async function parameters(file) {
  const view = new DataView(await file.arrayBuffer());
  if (view.byteLength < SIGNATURE || view.getUint32(0) !== 0x89504e47) return null;
  for (let at = SIGNATURE; at + 12 <= view.byteLength;) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...new Uint8Array(view.buffer, at + 4, 4));
    if (at + 12 + length > view.byteLength) return null;
    const found = kind === "tEXt" || kind === "iTXt" ? read(kind, new Uint8Array(view.buffer, at + 8, length)) : null;
    if (found) return found;
    at += 12 + length;
  }
  return null;
}

function read(kind, bytes) {
  const end = bytes.indexOf(0);
  if (new TextDecoder("latin1").decode(bytes.subarray(0, end)) !== "triptych") return null;
  let start = end + 1;
  if (kind === "iTXt") {
    if (bytes[start]) return null; // compressed, which ours never are
    start = bytes.indexOf(0, bytes.indexOf(0, start + 2) + 1) + 1; // behind flags, language and translated name
  }
  try {
    return JSON.parse(new TextDecoder(kind === "iTXt" ? "utf-8" : "latin1").decode(bytes.subarray(start)));
  } catch {
    return null;
  }
}
