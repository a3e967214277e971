// WHIP and WHEP as the small clients speak them: a POST with everything in it, and a DELETE.

/** POSTs an offer; returns the answer and the session's URL. */
export async function post(url, offer) {
  const reply = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer });
  const body = await reply.text();
  if (reply.status !== 201) throw new Error(`${url} answers ${reply.status}: ${body}`);
  return { answer: body, session: new URL(reply.headers.get('location'), url).href };
}

/** DELETEs a session. */
export const end = (session) => fetch(session, { method: 'DELETE' });
