/* Copying: a button with `data-copy` puts the text of the element of that id on the clipboard. */
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const said = button.parentElement.querySelector("[role=status]");
  try {
    await navigator.clipboard.writeText(source.textContent);
    said.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(source); /* no clipboard without https: Ctrl-C does it */
    said.textContent = "Selected: press Ctrl-C.";
  }
});
