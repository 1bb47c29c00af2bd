//! Kind and name to driver, with generations and live swap.
