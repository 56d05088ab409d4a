"""Model-zoo style releases and their metafiles."""
