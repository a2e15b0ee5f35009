"""Retrieval (Cranfield): a query encoder for the documents of another encoder.

  python -m ckd_jax.main --config=configs/cranfield.py --config.dataset.path=DIR
    --config.dataset.retrieval.embeddings=FILE.npz

DIR holds documents.jsonl (id, title, text), queries.jsonl (id, text) and
qrels.tsv (query, document, grade), also .xz. FILE holds what an encoder says:
`documents` [documents, dim], which the student searches and which are never
trained, and perhaps `titles` and `queries`. A title is a training query for its
own document; the budget counts titles, and a table holds a vector for each.
The queries are the test set, judged by nDCG@10, MRR@10 and Recall@100.

With `documents=student` the student is symmetric: it reads titles and documents
alike, and is judged by its own vectors of all documents. The encoder's vectors
of documents teach it then, which costs no call: they came with the file.

An encoder that is a service is asked about titles: `teacher.source=callable`
and a function from a list of str to float[n, dim].

A cross encoder's scores come with `answers=scores`, in a table or a file
(`teacher.path`): `logits` [titles, documents], -inf where nobody asked, or
`top_ids`, `top_log_probs` and `top_rest` (0) of those asked about; a service
returns such a row for a title, and that is one call, of as many pairs as it has
scores. `embedding` [titles, 2 * dim], where it is known, holds the pooled
vectors of a title and of its own document; without it set `hyper.weight=0.0`.

Keys that are not explained here are in configs/sst2.py and configs/cifar100.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ckd_jax import config as configuration
from ckd_jax.configs import sst2


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="embed_distill")
  method = options.pop("method")
  config = sst2.get_config(f"method={method}")
  config.budget = 1398
  config.val_fraction = 0.1
  config.dataset.name = "retrieval"
  config.dataset.text.length = 24
  config.dataset.retrieval = ConfigDict()
  config.dataset.retrieval.embeddings = placeholder(str)
  # By which products of vectors are divided, to be logits.
  config.dataset.retrieval.temperature = 0.1
  # Whether vectors are brought to length 1 before.
  config.dataset.retrieval.cosine = True
  # Documents that a step compares, drawn anew, with those of its titles; 0: all
  # of them, which is right up to about 100,000.
  config.dataset.retrieval.sampled = 0
  # Whose vectors of documents are searched: the "teacher"'s, as they are, or
  # the "student"'s; then a step compares the documents of its titles, texts are
  # read up to dataset.text.length, 128 is better, and eval_every costs more.
  config.dataset.retrieval.documents = "teacher"
  # What a teacher says of a title: "vectors", as in FILE, or "scores" of
  # documents, those of a cross encoder, which reads both at once.
  config.dataset.retrieval.answers = "vectors"
  if method == "ckd":
    config.hyper.offset = "none"
  if method == "embed_distill":
    config.hyper.weight = 5.0
  config.student = "averaging"
  config.teacher.source = "table"
  config.optimizer.learning_rate = 5e-3
  config.steps = 1000
  config.eval_every = 50
  configuration.override(config, options)
  return config
