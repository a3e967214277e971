// A clock for the test pattern: timers of workers keep their pace when the page is in the background.
setInterval(() => postMessage(null), 1000 / 30);
