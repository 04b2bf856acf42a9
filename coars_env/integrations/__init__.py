"""What other libraries look up: the ids of the environments in the registries of Gymnasium and PettingZoo."""
