/* What brings itself up to date rests while nobody sees it. */
"use strict";
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.closest?.("[data-refresh]")) event.preventDefault();
});
