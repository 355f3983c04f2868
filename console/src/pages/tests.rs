//! Pages through the whole stack.
