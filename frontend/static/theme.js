// Light, dark or as the system says, before the first paint. Not a module: it must run before the style sheet shows.
try {
  document.documentElement.dataset.theme = localStorage.getItem("youtu.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // No storage in this browser.
}
