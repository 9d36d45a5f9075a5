// Principal components in a thread of their own: a thousand patches of a large model take a second.

import { colours, principal } from "./pca.js";

onmessage = ({ data: { values, dim, id } }) => {
  const { scores, explained } = principal(values, dim);
  postMessage({ id, colours: colours(scores), explained });
};
