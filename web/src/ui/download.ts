// Files behind the credential: a link alone could not send it.
import { send } from '../api';
import { failed } from './toasts';

export async function download(at: string, name: string): Promise<void> {
  try {
    const answer = await send('GET', at);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    failed(error);
  }
}
