"""The configs, weights and packages of the MM libraries."""
