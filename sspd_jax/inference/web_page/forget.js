// Served by `sspd_jax live` in place of offline.js: a page that was once served at the same address, and kept for use
// without a network, would stand in the live page's way.

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) => {
  const forget = async () => {
    await self.registration.unregister();
    for (const client of await self.clients.matchAll({ type: "window" })) client.navigate(client.url);
  };
  event.waitUntil(forget());
});
