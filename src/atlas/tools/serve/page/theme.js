// Light or dark: runs before the page is drawn, so that it never flashes.
(() => {
  const NAME = "atlas.theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  try {
    const stored = localStorage.getItem(NAME);
    if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  } catch {
    // A browser may forbid storage: the system's choice then holds.
  }

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      const other = isDark() ? "Light" : "Dark";
      button.textContent = other;
      button.setAttribute("aria-label", `${other} colours`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(NAME, root.dataset.theme);
      } catch {
        // It then lasts as long as the page.
      }
      label();
    });
    system.addEventListener("change", label);
    label();
  });
})();
