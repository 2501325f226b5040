"""What runs on a node: corpora, identifiers, models, training, decoding, evaluation. Knows neither Ray nor the grid."""
