// Sliders' thumbs have no name for screen readers: each gets that of the label beside it.
new MutationObserver(() => {
  for (const thumb of document.querySelectorAll(".slider [role=slider]:not([aria-label])")) {
    thumb.setAttribute("aria-label", thumb.closest(".slider").querySelector("label").textContent);
  }
}).observe(document.documentElement, { childList: true, subtree: true });
