// Light or dark theme. Runs before the first paint, so that the page never flashes.
(() => {
  const STORED = "atlas.theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  try {
    const stored = localStorage.getItem(STORED);
    if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  } catch {
    // Without storage, the system's theme applies.
  }

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const showOther = () => {
      const other = isDark() ? "Light" : "Dark";
      button.textContent = other;
      button.setAttribute("aria-label", `${other} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(STORED, root.dataset.theme);
      } catch {
        // As above.
      }
      showOther();
    });
    system.addEventListener("change", showOther);
    showOther();
  });
})();
