// Printing a conversation: all of it, rendered, without what is there to be clicked.

import * as view from "./view.js";

// What was not in view yet is rendered first, which the browser's own command would not wait for.
export async function printConversation() {
  await view.finishAll();
  print();
}
