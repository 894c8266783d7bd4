"use strict";
// Renews the page of a run at work in its place: a reload would take the focus, and make a screen reader begin again.
const kept = "pre, .scroll", regions = () => [...document.querySelectorAll(kept)];

function replace(page) {
  const held = regions().map((one) => [one.scrollTop, one.scrollLeft]);
  const focused = regions().indexOf(document.activeElement);
  document.querySelector("main").replaceWith(page.querySelector("main"));
  regions().forEach((one, at) => { [one.scrollTop, one.scrollLeft] = held[at] ?? [0, 0]; });
  if (focused >= 0) regions()[focused]?.focus({ preventScroll: true });
}

async function renew(seconds) {
  try {
    const reply = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    document.getElementById("lost").hidden = reply.ok;
    // What somebody has selected stays until it has been copied.
    if (reply.ok && getSelection().isCollapsed) {
      replace(page);
      seconds = Number(page.documentElement.dataset.refresh || 0);
    }
  } catch { document.getElementById("lost").hidden = false; }
  if (seconds) setTimeout(renew, seconds * 1000, seconds);
}

const every = Number(document.documentElement.dataset.refresh);
setTimeout(renew, every * 1000, every);
