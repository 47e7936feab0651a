/** cli-table3 options for a table without colours and without lines between rows. */
export const PLAIN = {
  style: { head: [] as string[], border: [] as string[] },
  chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
};
