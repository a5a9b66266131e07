// Captions and urls come from the web: they are only ever set as text.
"use strict";
const $ = (id) => document.getElementById(id);
let shown = null;
let asked = 0;

function say(text, kind) {
  $("status").textContent = text;
  $("status").className = kind || "";
}

function number(value, digits) {
  return value === null || value === undefined ? null : value.toFixed(digits);
}

function row(list, name, value) {
  if (value === null || value === undefined || value === "") return;
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  if (value instanceof Node) text.append(value);
  else text.textContent = String(value);
  list.append(term, text);
}

function link(url) {
  if (!/^https?:\/\//i.test(url || "")) return url;
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  anchor.textContent = url;
  return anchor;
}

function card(match) {
  const item = $("card").content.firstElementChild.cloneNode(true);
  const view = match.view === "none" ? "" : `, ${match.view}`;
  const verdict = match.is_copy === true ? "Copy" : match.is_copy === false ? "Alike, no copy" : "Not compared";
  item.querySelector(".verdict").textContent = `${verdict} · similarity ${number(match.similarity, 4)}${view}`;
  if (match.is_copy === true) {
    item.classList.add("copy");
    item.querySelector(".verdict").classList.add("copy");
  }
  item.querySelector(".caption").textContent = match.caption || "";
  const picture = item.querySelector("img");
  picture.addEventListener("error", () => { picture.alt = "can't be read"; });
  picture.src = `preview/${match.sample_id}?side=272`;
  const list = item.querySelector("dl");
  row(list, "in the data", match.duplication_count === 1 ? "once" : `${match.duplication_count.toLocaleString("en")} times`);
  row(list, "key", match.key);
  row(list, "shard", match.shard);
  row(list, "url", link(match.url));
  row(list, "distance", number(match.distance, 3));
  row(list, "trouble", match.trouble);
  return item;
}

async function look(file) {
  const turn = ++asked;
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  $("picture").src = shown;
  $("picture").hidden = false;
  $("hint").hidden = true;
  $("matches").replaceChildren();
  say("Looking …");
  let answer;
  try {
    const response = await fetch("search?k=12", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    answer = await response.json();
    if (turn !== asked) return;
    if (!response.ok) {
      say(`It can't be looked up: ${answer.error}`, "error");
      return;
    }
  } catch (error) {
    if (turn === asked) say("The service can't be reached.", "error");
    return;
  }
  const copies = answer.matches.filter((match) => match.is_copy === true).length;
  if (answer.is_copy) say(copies === 1 ? "A copy of a training image." : `A copy of ${copies} training images.`, "copy");
  else say(answer.matches.length ? "No copy found; these are alike." : "No training image matches.");
  $("matches").replaceChildren(...answer.matches.map(card));
}

function take(files) {
  const file = [...(files || [])].find((one) => !one.type || one.type.startsWith("image/"));
  if (file) look(file);
}

$("file").addEventListener("change", (event) => take(event.target.files));
$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("file").click();
  }
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
fetch("health").then((response) => response.json()).then((health) => {
  $("run").textContent = `${health.n_images.toLocaleString("en")} distinct images of ${health.run}`;
}).catch(() => {});
