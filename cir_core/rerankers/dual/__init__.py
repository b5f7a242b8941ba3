"""The paper's dual encoder and the engine that runs it, candidate-major."""
