// Shows what is new every 15 seconds, unless somebody is typing or looking elsewhere.
// Without it the page is as it was made, and complete.
"use strict";
setInterval(async () => {
  const at = document.activeElement;
  if (document.hidden || (at && ["INPUT", "SELECT"].includes(at.tagName))) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["age", "summary", "results"]) {
      const now = page.getElementById(id), before = document.getElementById(id);
      if (now && before && !before.contains(at)) before.replaceWith(now);
    }
  } catch { /* the next time */ }
}, 15000);
