"use strict";
// The page of a review. Every text of a record, a label or a note is set as text, never as markup.

const $ = (id) => document.getElementById(id);
/** Letters that choose a label after 1-9: those that do nothing else. */
const KEYS = [..."123456789", ..."abcdeijkmopqrtvwxyz"];
const TYPING = "input:not([type=checkbox]), textarea, select";
const AHEAD = 5, KEPT = 60, RETRY_MS = 500, RETRY_MOST_MS = 5000, LOOK_MS = 250;

// Mutable state: the draw as the server told it, the records that were fetched, what is filled in and not
// sent, what is being sent, and what is looked at.
let draw = null;
const records = new Map(), drafts = new Map(), queue = [];
// `rendered` is the record on the screen, null while another one is on its way; `ahead` are the keys pressed meanwhile.
let at = 0, active = 0, sending = false, failed = 0, order = null, found = null, rendered = null;
const ahead = [];

// -- small things -------------------------------------------------------------------------------------------------

function make(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const reply = await fetch(path, { ...how, cache: "no-store" });
  const text = await reply.text();
  const isJson = reply.headers.get("Content-Type") === "application/json", told = isJson ? JSON.parse(text) : { error: text };
  if (!reply.ok) throw Object.assign(new Error(told.error), { refused: (isJson && reply.status < 500) || reply.status === 413 });
  return told;
}

function warn(text) { $("alert").hidden = !text; $("alert").textContent = text; }
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const number = (n) => n.toLocaleString("en-US");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const chosen = () => draw.fields.filter((field) => field.kind === "one" || field.kind === "several");
/** The fields that are asked for: those of choices or, without any, all. */
const main = () => (chosen().length ? chosen() : draw.fields);

// -- records ------------------------------------------------------------------------------------------------------

async function fetched(place) {
  if (!records.has(place)) {
    const coming = ask(`record?at=${place}`);
    records.set(place, coming);
    coming.catch(() => records.delete(place));
    if (records.size > KEPT) records.delete([...records.keys()].find((one) => Math.abs(one - at) > AHEAD));
  }
  return records.get(place);
}

/** The places of the records that are shown, in their order. */
function places() { return order ?? draw.items.map((_, place) => place); }
function isOpen(place) { return !draw.items[place].by && !queue.some((job) => job.at === place); }

/** The next record that nobody has answered, from this place on and then from the beginning; null without any. */
function nextOpen(place) {
  const all = places(), here = all.findIndex((one) => one >= place);
  const turned = here < 0 ? all : [...all.slice(here), ...all.slice(0, here)];
  return turned.find((one) => one !== place && isOpen(one)) ?? null;
}

/** The middle of the longest row of open records: two people who are at the same record part ways. */
function apart() {
  let best = [0, -1], begin = null;
  const all = [...places(), null];
  all.forEach((place, i) => {
    if (place !== null && isOpen(place)) begin ??= i;
    else if (begin !== null) { if (i - begin > best[1] - best[0]) best = [begin, i]; begin = null; }
  });
  return best[1] < 0 ? null : all[Math.floor((best[0] + best[1]) / 2)];
}

async function show(place, focus = true) {
  keepDraft();
  at = place;
  rendered = null;
  let record;
  try { record = await fetched(place); } catch (error) {
    ahead.length = 0;
    warn(`${error.message} The record could not be loaded.`);
    if (!error.refused) setTimeout(() => { if (at === place && !rendered) show(place, false); }, RETRY_MS);
    return;
  }
  if (at !== place) return;
  rendered = record;
  $("desk").hidden = false;
  $("learned").hidden = true;
  active = 0;
  renderRecord(record);
  renderAnswer(record);
  if (focus) { (chosen().length ? $("key") : document.querySelector("#fields input, #fields textarea")).focus({ preventScroll: true }); window.scrollTo(0, 0); }
  let next = place;
  for (let i = 0; i < AHEAD && next !== null; i += 1) {
    next = nextOpen(next);
    if (next !== null) fetched(next).catch(() => {});
  }
  // A key that was lost here would shift those after it to other label fields.
  while (rendered && ahead.length) {
    press(ahead.shift());
    if (document.activeElement.matches(TYPING)) ahead.length = 0;
  }
}

function renderRecord(record) {
  const all = places(), here = all.indexOf(at);
  $("key").textContent = record.item.key;
  $("key").dir = "auto";
  $("place").textContent = `Record ${number(here + 1)} of ${number(all.length)}${order ? " found" : ""} · ${record.where}`;
  $("back").disabled = here <= 0;
  $("forth").disabled = here < 0 || here >= all.length - 1;
  $("media").replaceChildren(...record.media.map((one, n) => medium(one, n, record.media.length)));
  $("texts").replaceChildren(...record.texts.map((one) => make("div", { className: "field" },
    make("h3", { textContent: one.name, dir: "auto" }),
    make("div", { className: "text", dir: "auto", tabIndex: 0, role: "group", "aria-label": one.name, textContent: one.text || "(empty)" }),
    ...(one.more ? [make("p", { className: "sub", textContent: one.more })] : []))));
  $("others").hidden = !record.others.length;
  $("others").querySelector("summary").textContent = `Other fields (${record.others.length})`;
  $("others").querySelector("dl").replaceChildren(...record.others.flatMap((one) => [
    make("dt", { textContent: one.name, dir: "auto" }), make("dd", { textContent: one.text, dir: "auto" })]));
}

function medium(one, n, of) {
  const name = of > 1 ? `${n + 1} of ${of}` : "";
  if (one.kind === "image") return make("img", { src: one.url, alt: `Picture ${name} of this record` });
  if (one.kind === "audio") return make("audio", { src: one.url, controls: true, preload: "metadata", "aria-label": `Sound ${name} of this record` });
  return make("p", { className: "sub", textContent: one.told });
}

// -- the answer ---------------------------------------------------------------------------------------------------

function blank(record) {
  const fields = {};
  for (const field of draw.fields) if (record.begin[field.name] != null) fields[field.name] = record.begin[field.name];
  return { fields, note: record.answer?.note ?? "", unclear: record.answer?.unclear ?? false, touched: new Set() };
}

function draft() { return drafts.get(at); }

function keepDraft() {
  if (!rendered || !draft()) return;
  draft().note = $("note").value;
  draft().unclear = $("unclear").checked;
}

function renderAnswer(record) {
  if (!drafts.has(at)) drafts.set(at, blank(record));
  $("note").value = draft().note;
  $("unclear").checked = draft().unclear;
  $("state").hidden = !said(record);
  $("state").textContent = said(record);
  const rest = draw.fields.filter((field) => !main().includes(field));
  $("fields").replaceChildren(...main().map((field, i) => fieldset(field, i, record)));
  $("more").hidden = !rest.length;
  $("more").open = needsMore(record);
  $("more").querySelector("summary").textContent = `Other label fields (${rest.map((field) => field.name).join(", ")})`;
  $("more").querySelector("div").replaceChildren(...rest.map((field) => fieldset(field, -1, record)));
  mark();
  for (const list of document.querySelectorAll(".choices.many")) {
    const first = list.querySelector('[aria-pressed="true"]');
    if (first) list.scrollTop = first.offsetTop - list.offsetTop - first.offsetHeight;
  }
}

/** A record without a label gets one only with all of its required fields. */
function needsMore(record) {
  return Boolean(record.problem) && draw.fields.some((field) => field.required && !main().includes(field));
}

function said(record) {
  if (record.answer) {
    const how = record.answer.blind ? "blind" : draw.blind ? "after the model's label was seen" : "assisted";
    return `Answered by ${record.answer.by} (${how}).`;
  }
  if (record.item.by) return `Answered by ${record.item.by}. The answer and the model's label stay hidden until you have answered.`;
  if (record.seen) return "You have answered this record before, outside of this draw. Your answer corrects the label, but does not count as blind.";
  return record.problem ? `The model gave no label: ${record.problem}` : "";
}

function fieldset(field, i, record) {
  const node = make("fieldset", {}, make("legend", { textContent: field.name, dir: "auto" }));
  node.dataset.field = field.name;
  if (field.kind === "several") node.querySelector("legend").append(make("span", { className: "remark", textContent: " · choose all that apply" }));
  if (field.meaning) node.append(make("p", { className: "remark", textContent: field.meaning, dir: "auto" }));
  if (field.kind === "one" || field.kind === "several") node.append(...choices(field, i, record));
  else node.append(input(field));
  return node;
}

function choices(field, i, record) {
  const model = record.chosen[field.name] ?? [];
  const isShort = field.choices.every((one) => one.text.length <= 6 && !one.meaning);
  const list = make("div", { className: `choices${isShort ? " short" : ""}${field.choices.length > 9 && !isShort ? " many" : ""}` });
  field.choices.forEach((one, place) => {
    const key = KEYS[place];
    const isModel = model.includes(one.text);
    list.append(make("button", { type: "button", className: "choice", onclick: () => { setActive(i); choose(field, place); }, ...(key ? { "aria-keyshortcuts": key } : {}) },
      ...(key && i >= 0 ? [make("kbd", { textContent: key, "aria-hidden": "true" })] : []),
      make("span", {}, make("span", { className: "value", textContent: one.text, dir: "auto" }),
        ...(one.meaning ? [make("span", { className: "means", textContent: one.meaning, dir: "auto" })] : [])),
      ...(isModel ? [make("span", { className: "mark", textContent: "model" })] : [])));
  });
  return field.choices.length > KEYS.length ? [picker(field, i, list), list] : [list];
}

/** An input that leaves the labels that hold a text; Enter chooses the first of them. */
function picker(field, i, list) {
  const narrow = (box) => [...list.children].forEach((one) => { one.hidden = !one.textContent.toLowerCase().includes(box.value.toLowerCase()); });
  return make("input", {
    type: "search", className: "pick", placeholder: "Look for a label (.)", "aria-label": `Look for a value of ${field.name}`,
    oninput: (event) => narrow(event.target),
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      const place = [...list.children].findIndex((one) => !one.hidden);
      if (place >= 0) { event.target.value = ""; narrow(event.target); $("key").focus(); setActive(i); choose(field, place); }
    },
  });
}

function input(field) {
  const value = draft().fields[field.name] ?? "";
  const range = field.low != null || field.high != null ? `from ${field.low ?? "…"} to ${field.high ?? "…"}` : "";
  const given = { value, "aria-label": field.name, dir: "auto", oninput: (event) => { fill(field, event.target.value); } };
  if (field.kind === "number") return make("input", { type: "text", inputMode: field.whole ? "numeric" : "decimal", placeholder: range, ...given });
  return make("textarea", { rows: 2, ...given, placeholder: field.kind === "json" ? "a JSON value" : "" });
}

function fill(field, text) {
  draft().touched.add(field.name);
  if (text) draft().fields[field.name] = text; else delete draft().fields[field.name];
  mark();
}

function setActive(i) {
  if (i < 0) return;
  active = i;
  mark();
  document.querySelector("#fields fieldset:not(.off)")?.scrollIntoView({ block: "nearest" });
}

/** Show what is chosen, which field the keys are for, and whether there is something to save. */
function mark() {
  for (const node of document.querySelectorAll("fieldset[data-field]")) {
    const field = draw.fields.find((one) => one.name === node.dataset.field);
    const value = draft().fields[field.name];
    node.classList.toggle("off", main().length > 1 && main()[active] !== field);
    node.querySelectorAll(".choice").forEach((one, place) =>
      one.setAttribute("aria-pressed", String(field.kind === "several" ? (value ?? []).includes(place) : value === place)));
  }
  const isAnswered = Boolean(draw.items[at].by);
  const as = !draw.blind && !draft().touched.size && !isAnswered && main().every((field) => draft().fields[field.name] != null);
  $("save").replaceChildren(as ? "Confirm " : "Save ", make("kbd", { textContent: "Enter", "aria-hidden": "true" }));
  $("undo").disabled = !draw.items.some((item) => item.by === draw.by) && !queue.length;
}

function choose(field, place) {
  if (!rendered) return undefined;
  const now = draft().fields[field.name];
  draft().touched.add(field.name);
  const node = [...document.querySelectorAll("fieldset")].find((one) => one.dataset.field === field.name);
  node.querySelectorAll(".choice")[place].scrollIntoView({ block: "nearest" });
  if (field.kind === "several") {
    const all = new Set(now ?? []);
    if (!all.delete(place)) all.add(place);
    draft().fields[field.name] = [...all].sort((a, b) => a - b);
    $("live").textContent = `${field.name} ${field.choices[place].text} ${all.has(place) ? "chosen" : "not chosen"}.`;
    return mark();
  }
  draft().fields[field.name] = place;
  mark();
  const all = main(), isWhole = all.every((one) => draft().fields[one.name] != null);
  const isQuick = all.every((one) => one.kind === "one") && !$("more").open && (all.length === 1 || (draw.blind && !draw.items[at].by));
  if (isQuick && isWhole) return save();
  const next = all.findIndex((one, i) => i > all.indexOf(field) && (draft().fields[one.name] == null || !draw.blind));
  if (next >= 0) setActive(next);
  $("live").textContent = `${field.name} ${field.choices[place].text}.${next >= 0 ? ` Now ${all[next].name}.` : ""}`;
}

/** What is sent: the fields that are asked for, and the others if this person has changed them or the record has no label. */
function fieldsToSend(record) {
  const { fields, touched } = draft(), all = record.problem ? draw.fields : main(), sent = {};
  for (const [name, value] of Object.entries(fields)) {
    if (touched.has(name) || all.some((field) => field.name === name)) sent[name] = value;
  }
  // A list of which nothing was chosen says something only once it was touched, or with another answer.
  for (const field of main()) if (field.kind === "several" && sent[field.name] == null && Object.keys(sent).length) sent[field.name] = [];
  return sent;
}

async function save() {
  if (!rendered) return;
  keepDraft();
  const place = at, record = rendered, { unclear, note, touched } = draft();
  const isOnlyUnclear = unclear && !touched.size && !draw.items[place].by;
  const fields = isOnlyUnclear ? {} : fieldsToSend(record);
  if (!Object.keys(fields).length && !unclear && !note.trim()) return warn("Choose a label, or say that the guideline is unclear.");
  warn("");
  queue.push({ at: place, path: "answer", body: { at: place, mark: record.mark, fields, unclear, note } });
  const next = nextOpen(place);
  pump();
  if (next !== null) await show(next); else { progress(); if (!order) await lessonsWhenSaved(); }
}

function undo() {
  keepDraft();
  rendered = null;
  queue.push({ at: null, path: "undo", body: {} });
  pump();
}

/** Send what there is, one after the other: nothing is dropped until the server has it. */
async function pump() {
  if (sending) return;
  sending = true;
  while (queue.length) {
    const job = queue[0];
    saved("Saving…");
    if (job.path === "answer") job.body.answered = draw.items.filter((item) => item.by).length + Number(!draw.items[job.at].by);
    let told = null;
    try { told = await ask(job.path, job.body); } catch (error) {
      if (error.refused) { queue.shift(); await refused(job, error); } else await unreachable(error);
      continue;
    }
    queue.shift();
    failed = 0;
    warn("");
    await taken(job, told);
  }
  sending = false;
}

async function unreachable(error) {
  saved("Not saved");
  const why = error instanceof TypeError ? "labelpipe does not answer. Is it still running?" : error.message;
  warn(`${plural(queue.length, "answer")} not saved yet: ${why} It is tried again until it is saved; keep this page open.`);
  failed += 1;
  await new Promise((done) => setTimeout(done, Math.min(RETRY_MOST_MS, RETRY_MS * 2 ** (failed - 1))));
}

async function refused(job, error) {
  saved("Not saved");
  ahead.length = 0;
  if (job.at !== null) records.delete(job.at);
  await show(job.at ?? at);
  warn(`Not saved: ${error.message}`);
}

async function taken(job, told) {
  if (told.at === null) {
    saved("");
    await show(at);
    return warn("There is no answer of yours to take back.");
  }
  if (told.items) draw.items = told.items;
  draw.items[told.at] = told.item;
  draw.estimates = told.estimates;
  draw.counts = told.counts;
  const record = await fetched(told.at);
  Object.assign(record, { model: told.model, chosen: told.chosen, answer: told.answer, begin: told.begin, item: told.item });
  drafts.delete(told.at);
  if (at === told.at && rendered) renderAnswer(record);
  progress();
  estimates();
  before(job, record);
  if (job.path === "undo") return show(told.at);
  // Somebody else has answered what is looked at: go where nobody is.
  const isTaken = at !== told.at && draw.items[at].by && draw.items[at].by !== draw.by && !draft()?.touched.size;
  const free = isTaken && rendered ? apart() : null;
  return free === null ? undefined : show(free);
}

// -- what is told -------------------------------------------------------------------------------------------------

function saved(text) { $("saved").textContent = text; $("saved").className = text === "Saved" ? "good" : ""; }

function progress() {
  const { records: all, answered, unclear } = draw.counts;
  $("progress").max = all;
  $("progress").value = answered;
  $("count").textContent = `${number(answered)} of ${number(all)} answered${unclear ? ` · ${number(unclear)} unclear` : ""}`;
  if (rendered) mark();
}

function before(job, record) {
  $("before").hidden = job.path === "undo";
  saved(job.path === "undo" ? "Taken back" : "Saved");
  if (job.path === "undo") { $("live").textContent = `Taken back. ${record.item.key}.`; return; }
  const rows = [], told = [];
  for (const field of main()) {
    const mine = record.answer?.label[field.name], model = record.model?.[field.name];
    if (mine === undefined) {
      if (model !== undefined) rows.push(make("dt", { textContent: field.name }), make("dd", { textContent: `the model says ${model}` }));
      continue;
    }
    const isSame = mine === model;
    rows.push(make("dt", { textContent: field.name }), make("dd", {}, make("bdi", { textContent: mine }),
      ...(model === undefined ? [] : [make("span", { className: isSame ? "right" : "wrong", textContent: isSame ? " · as the model says" : ` · the model says ${model}` })])));
    told.push(`${field.name} ${mine}${model === undefined || isSame ? "" : `, the model says ${model}`}`);
  }
  if (record.answer?.unclear) { rows.push(make("dt", { textContent: "guideline" }), make("dd", { textContent: "unclear" })); told.push("unclear"); }
  $("before").querySelector("p").replaceChildren(make("button", { type: "button", className: "link", textContent: record.item.key, onclick: () => show(record.at) }));
  $("before").querySelector("dl").replaceChildren(...rows);
  const first = draw.estimates.find((one) => one.n);
  const share = draw.blind && first ? ` Accuracy ${percent(first.mean)}, ${percent(first.low)} to ${percent(first.high)}.` : "";
  $("live").textContent = `Saved. ${record.item.key}: ${told.join("; ")}.${share}`;
}

function estimates() {
  $("estimate").replaceChildren(...(draw.blind ? draw.estimates.map(card) : draw.estimates.length ? [agreement()] : []));
}

/** Of an assisted draw: how many labels were right. That measures nothing, and so has no interval. */
function agreement() {
  const rows = draw.estimates.map((one) => [one.field, one.n ? `${percent(one.mean)} · ${number(one.right)} of ${plural(one.n, "answer")}` : "no answer yet"]);
  return make("div", { className: "card" }, make("h3", { textContent: "Right so far" }),
    make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", { textContent: name, dir: "auto" }), make("dd", { textContent: text })])),
    make("p", { textContent: draw.meant }));
}

function card(one) {
  const node = make("div", { className: "card" }, make("h3", { textContent: `Accuracy of ${one.field}` }));
  node.dataset.estimate = one.field;
  if (!one.n) { node.append(make("p", { textContent: "The estimate begins with your first answer." })); return node; }
  node.append(make("p", { className: "figure", textContent: percent(one.mean) }));
  const low = Math.min(0.5, Math.floor(one.low * 10) / 10), across = (share) => `${(100 * (share - low)) / (1 - low)}%`;
  const band = make("i"), point = make("b");
  band.style.left = across(one.low);
  band.style.right = `${100 - parseFloat(across(one.high))}%`;
  point.style.left = across(one.mean);
  const more = one.more ? `About ${number(one.more)} more for ±2%${one.more > one.left ? ` (${number(one.left)} left in this draw)` : ""}.` : one.high - one.low > 0.04 ? "All records are answered." : "The interval is within ±2%.";
  node.append(
    make("p", { textContent: `95% interval: ${percent(one.low)} to ${percent(one.high)}` }),
    make("div", { className: "band", "aria-hidden": "true" }, band, point),
    make("div", { className: "ends", "aria-hidden": "true" }, make("span", { textContent: percent(low) }), make("span", { textContent: "100%" })),
    make("p", { textContent: `${plural(one.n, "blind answer")}. ${more} ${draw.meant}` }));
  return node;
}

// -- find ---------------------------------------------------------------------------------------------------------

function filters() {
  const options = [["all", "All records"], ["open", "Not answered"], ["answered", "Answered"], ["unclear", "Guideline unclear"], ["note", "With a note"], ["differs", "Not as the model says"]];
  for (const field of chosen()) for (const one of field.choices) options.push([`${field.name}\n${one.text}`, `${field.name}: ${one.text}`]);
  $("filter").replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
}

function fits(item, filter) {
  if (filter === "all") return true;
  if (filter === "open") return !item.by;
  if (filter === "answered") return Boolean(item.by);
  if (["unclear", "note", "differs"].includes(filter)) return item[filter];
  const [name, value] = filter.split("\n");
  return Boolean(item.label[name]?.includes(value));
}

async function find() {
  const text = $("text").value.trim(), filter = $("filter").value;
  try { found = text ? new Set((await ask(`find?text=${encodeURIComponent(text)}`)).places) : null; } catch (error) { return warn(error.message); }
  if (text !== $("text").value.trim()) return undefined;
  const all = draw.items.map((_, place) => place).filter((place) => fits(draw.items[place], filter) && (!found || found.has(place)));
  const isAll = !text && filter === "all";
  $("matches").textContent = isAll ? "" : `${plural(all.length, "record")} found`;
  order = isAll || !all.length ? null : all;
  if (order && !order.includes(at)) return show(order[0], false);
  return rendered ? fetched(at).then(renderRecord) : undefined;
}

function openFind(isOpen) {
  $("find").hidden = !isOpen;
  $("open-find").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) return $("text").focus();
  $("text").value = "";
  $("filter").value = "all";
  find();
  return $("key").focus();
}

// -- what was learned ---------------------------------------------------------------------------------------------

async function lessonsWhenSaved() {
  while (sending) await new Promise((done) => setTimeout(done, LOOK_MS / 5));
  if (!draw.items.some((item) => !item.by)) await lessons();
}

async function lessons() {
  keepDraft();
  let told;
  try { told = await ask("learned"); } catch (error) { return warn(error.message); }
  draw.estimates = told.estimates;
  draw.counts = told.counts;
  progress();
  estimates();
  const { records: all, answered, corrected, confirmed, unclear } = told.counts;
  const sum = `${number(answered)} of ${number(all)} records answered: ${number(confirmed)} as the model says, ${number(corrected)} otherwise, ${number(unclear)} with an unclear guideline.`;
  $("lessons").replaceChildren(
    make("p", { textContent: sum }), make("p", { className: "sub", textContent: `${told.meant} ${told.files.told}` }),
    ...told.fields.map((field) => lesson(field, told)));
  $("desk").hidden = true;
  $("learned").hidden = false;
  $("learned-title").focus({ preventScroll: true });
  return window.scrollTo(0, 0);
}

function lesson(field, told) {
  const one = told.estimates.find((each) => each.field === field.field);
  const node = make("section", {}, make("h3", { textContent: field.field, dir: "auto" }));
  if (one.n) {
    const share = draw.blind ? `Accuracy ${percent(one.mean)}, 95% interval ${percent(one.low)} to ${percent(one.high)}, from ${plural(one.n, "blind answer")}.`
      : `${number(one.right)} of ${plural(one.n, "label")} right (${percent(one.mean)}).`;
    node.append(make("p", { textContent: share }));
  }
  node.append(make("h4", { textContent: field.differing.length ? "Where people say something else" : "Nobody has said anything else than the model." }));
  for (const row of field.differing) node.append(group(told, row.records, "The model says ", make("b", { textContent: row.label, dir: "auto" }), ", people say ", make("b", { textContent: row.answer, dir: "auto" }), ` · ${plural(row.n, "record")}${notes(row)}`));
  if (field.unclear.length) node.append(make("h4", { textContent: "The guideline is unclear, or only a note was left" }));
  for (const row of field.unclear) node.append(group(told, row.records, "The model says ", make("b", { textContent: row.label, dir: "auto" }), ` · ${plural(row.n, "record")}${notes(row)}`));
  if (field.noted.length) node.append(make("h4", { textContent: "Notes on labels that are right" }), group(told, field.noted, plural(field.noted.length, "record")));
  return node;
}

function notes(row) { const n = row.records.filter((one) => one.note).length; return n ? `, ${plural(n, "note")}` : ""; }

function group(told, all, ...title) {
  return make("details", { className: "lesson", open: all.length <= 5 }, make("summary", {}, ...title), make("ul", {}, ...all.map((one) => {
    const said = make("p", { className: "said", role: "status", hidden: true });
    const keep = (path, text, where) => make("button", { type: "button", textContent: text, title: where, onclick: async (event) => {
      event.target.disabled = true;
      try { said.textContent = (await ask(path, { at: one.at })).told; } catch (error) { said.textContent = error.message; event.target.disabled = false; }
      said.hidden = false;
    } });
    return make("li", {},
      make("div", {}, make("button", { type: "button", className: "link", textContent: one.key, onclick: () => { order = null; show(one.at); } }),
        make("span", { className: "sub", textContent: ` · ${one.by}` }), make("p", { className: "excerpt", dir: "auto", textContent: one.excerpt }),
        ...(one.note ? [make("p", { className: "noted", dir: "auto", textContent: `Note: ${one.note}` })] : [])),
      ...(one.has_label ? [make("div", { className: "actions" }, keep("example", "Make it an example", told.places.examples), keep("gold", "Make it gold", told.places.gold)), said] : []));
  })));
}

async function guideline() {
  let told;
  try { told = await ask("guideline"); } catch (error) { return warn(error.message); }
  $("rules").querySelector("div").replaceChildren(
    ...(told.why ? [make("p", { className: "sub", textContent: told.why })] : []),
    ...told.parts.flatMap((part) => [make("h3", { textContent: part.title, dir: "auto" }), make("p", { className: "sub", textContent: part.where }), make("pre", { textContent: part.text, dir: "auto", tabIndex: 0 })]));
  return $("rules").showModal();
}

async function end() {
  while (sending) await new Promise((done) => setTimeout(done, LOOK_MS / 5));
  try { warn((await ask("end", {})).told); } catch (error) { return warn(error.message); }
  document.removeEventListener("keydown", onKey);
  $("desk").hidden = true;
  $("learned").hidden = true;
  return queue.splice(0);
}

// -- keys ---------------------------------------------------------------------------------------------------------

const COMMANDS = {
  ArrowLeft: () => step(-1), ArrowRight: () => step(1),
  ArrowUp: () => turnTo(active - 1), ArrowDown: () => turnTo(active + 1),
  Enter: save, s: skip, u: undo, g: unclear, "?": unclear, n: () => $("note").focus(),
  f: () => openFind(true), "/": () => openFind(true), l: lessons, h: () => $("keys").showModal(),
  ".": () => document.querySelectorAll("fieldset .pick")[0]?.focus(),
};

function turnTo(i) {
  setActive(Math.min(Math.max(0, i), main().length - 1));
  $("live").textContent = `Now ${main()[active].name}.`;
}

function step(by) {
  const all = places(), next = all[all.indexOf(at) + by];
  if (next !== undefined) show(next);
}

function skip() {
  const next = nextOpen(at);
  if (next !== null && next !== at) show(next);
  else warn("There is no other record that nobody has answered.");
}

function unclear() {
  $("unclear").checked = true;
  $("note").focus();
}

function onKey(event) {
  const { target, key } = event, isTyping = target.matches(TYPING);
  if (document.querySelector("dialog[open]")) return undefined;
  if (key === "Escape") return escape(target, isTyping);
  if (isTyping) {
    const isNote = target.closest("#answer") && target.matches("textarea, input") && key === "Enter" && !event.shiftKey && !event.isComposing;
    if (isNote) { event.preventDefault(); save(); }
    return undefined;
  }
  if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "z" && !event.shiftKey) { event.preventDefault(); return undo(); }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && key !== "ArrowLeft" && key !== "ArrowRight") return undefined;
  if (!$("learned").hidden) return undefined;
  const isVertical = key === "ArrowUp" || key === "ArrowDown";
  if (isVertical && (main().length < 2 || target.matches(".text"))) return undefined;
  if (key === "Enter" && target.closest("button, summary, a")) return undefined;
  if (rendered && !meaning(key)) return undefined;
  event.preventDefault();
  return rendered ? press(key) : ahead.push(key);
}

/** What a key does: the label that it chooses comes first. */
function meaning(key) {
  const field = main()[active], place = KEYS.indexOf(key.toLowerCase());
  if (place >= 0 && field?.choices[place]) return () => choose(field, place);
  return COMMANDS[key.length === 1 ? key.toLowerCase() : key];
}

function press(key) { return meaning(key)?.(); }

function escape(target, isTyping) {
  if (!$("learned").hidden) return show(at);
  if (isTyping && target.closest("#find")) return openFind(false);
  if (isTyping) { target.blur(); return $("key").focus(); }
  return $("find").hidden ? undefined : openFind(false);
}

// -- the beginning ------------------------------------------------------------------------------------------------

async function begin() {
  try { draw = await ask("state"); } catch (error) {
    warn(`The review could not be loaded: ${error.message}`);
    return;
  }
  $("about").textContent = `${draw.blind ? "Blind" : "Assisted"} review of draw ${draw.draw} by ${draw.by} · ${number(draw.items.length)} of ${number(draw.population)} records`;
  filters();
  progress();
  estimates();
  const clicks = {
    "open-find": () => openFind($("find").hidden), "close-find": () => openFind(false), "open-learned": lessons, "close-learned": () => show(at),
    "open-keys": () => $("keys").showModal(), back: () => step(-1), forth: () => step(1), save, skip, undo, guideline, end,
  };
  for (const [id, work] of Object.entries(clicks)) $(id).addEventListener("click", work);
  let timer = 0;
  $("text").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, LOOK_MS); });
  $("filter").addEventListener("change", find);
  $("find").addEventListener("submit", (event) => { event.preventDefault(); find().then(() => $("key").focus()); });
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeunload", (event) => { if (queue.length) event.preventDefault(); });
  const first = draw.items.findIndex((item) => !item.by);
  await show(Math.max(0, first));
  if (first < 0) await lessons();
}

begin();
