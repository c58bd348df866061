// Keeps the app on this device, so that it starts without a network. VERSION and FILES stand above, put there by the
// server: any change to a file is a new version, kept whole before the old one goes. The drafter is kept by store.js.

const CACHE = `app-${VERSION}`;
const isOurs = (name) => name.startsWith("app-");

addEventListener("install", (event) => {
  skipWaiting();
  const requests = FILES.map((file) => new Request(`./${file}`, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

addEventListener("activate", (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) if (isOurs(name) && name !== CACHE) await caches.delete(name);
    await clients.claim();
  };
  event.waitUntil(tidy());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  const file = request.url.startsWith(registration.scope) ? request.url.slice(registration.scope.length) : null;
  if (request.method !== "GET" || !FILES.includes(file)) return;
  const answer = async () => (await (await caches.open(CACHE)).match(`./${file}`)) ?? fetch(request);
  event.respondWith(answer());
});
